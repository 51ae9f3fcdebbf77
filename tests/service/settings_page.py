"""docs/settings.md, written from the settings themselves: `python -m tests.service.settings_page`, or `make
docs`.
"""

import types
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from service.settings import PREFIX, PROGRAM, Settings

PAGE: Final = Path(__file__).parents[2] / "docs" / "settings.md"

_UNITS: Final = {"_seconds": "s", "_ms": "ms", "_bytes": "bytes", "_length": "characters"}
_TYPES: Final = {str: "text", Path: "path", int: "integer", float: "number", bool: "true, false"}
_FACTORY_DEFAULTS: Final = {"threads": "the CPU quota"}
_UNSET: Final = "unset"

_HEAD: Final = f"""# Settings
Each is a flag of `{PROGRAM}` and an environment variable; `make serve` and the container image pass the environment on. A flag goes before the
environment, the environment before the default. This page is made from [service/settings.py](../service/settings.py) by `make docs`.

```console
$ {PROGRAM} --grpc-address 127.0.0.1:50052 --slots 64
$ SEQSERVE_GRPC_ADDRESS=127.0.0.1:50052 SEQSERVE_SLOTS=64 {PROGRAM}
```

**A wrong value or an unknown name stops the start**, with exit status 2 and a line for each: the name, what is allowed, what was found. Unknown
means any variable that begins with `{PREFIX}` and is not in the table. Kubernetes adds such variables to pods beside a Service named `seqserve`
(`SEQSERVE_PORT`, `SEQSERVE_SERVICE_HOST`, ...): set `enableServiceLinks: false` in the pod.

| variable | flag | type | default | range | unit | what it is |
| --- | --- | --- | --- | --- | --- | --- |
"""

_TAIL: Final = f"""
*unset*, where the text says so: measured when a model is loaded ([performance.md](performance.md)).

## What goes together
- `{PREFIX}TLS_CERTIFICATE` and `{PREFIX}TLS_KEY`: both or neither; `{PREFIX}TLS_CLIENT_CA` only with them. An address that other machines can
  reach needs them, or `{PREFIX}ALLOW_PLAINTEXT=true` ([security.md](security.md)).
- A request holds at most the smaller of `{PREFIX}MAX_ITEMS` and `{PREFIX}MAX_WAITING` texts or series, since all of them have to fit into the queue.
- Let the time that the orchestrator leaves between SIGTERM and SIGKILL exceed `{PREFIX}GRACE_SECONDS` + `{PREFIX}DRAIN_SECONDS` by five seconds
  ([resilience.md](resilience.md)).
- `{PREFIX}CONNECTION_GRACE_SECONDS` counts from `{PREFIX}CONNECTION_AGE_SECONDS` on; without an age it does nothing. Streams that are cut at its end
  go on by themselves with the Python client.
- `{PREFIX}STATE_KEYS`: the same file on every replica, or a sealed state opens only where it was made.
"""


def page() -> str:
    """The whole page."""
    rows = (_row(name, field) for name, field in Settings.model_fields.items())
    return _HEAD + "".join(rows) + _TAIL


def _row(name: str, field: FieldInfo) -> str:
    variable, flag = PREFIX + name.upper(), "--" + name.replace("_", "-")
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")
    cells = (
        f"`{variable}`",
        f"`{flag}`",
        _type(field.annotation),
        _default(name, field),
        _range(field),
        unit,
        str(field.description),
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _type(annotation: Any) -> str:
    """A type in words; that it may be left out shows in the default."""
    if get_origin(annotation) is Literal:
        return "one of"
    if get_origin(annotation) in (Union, types.UnionType):
        (one,) = (part for part in get_args(annotation) if part is not type(None))
        return _type(one)
    return _TYPES[annotation]


def _default(name: str, field: FieldInfo) -> str:
    if field.default_factory is not None:
        return _FACTORY_DEFAULTS[name]
    if field.default is None:
        return _UNSET
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def _range(field: FieldInfo) -> str:
    """What is allowed: from, to; or the words."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(field.annotation))
    low = high = ""
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge):
            low = f"{bound.ge}"
        elif isinstance(bound, annotated_types.Gt):
            low = f"above {bound.gt}"
        elif isinstance(bound, annotated_types.Le):
            high = f"{bound.le}"
    return f"{low} to {high}" if low or high else ""


if __name__ == "__main__":
    PAGE.write_text(page())
