"""Write docs/settings.md from the settings: `python -m tools.settings_page`, or `make docs`."""

import types
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from service.settings import PREFIX, PROGRAM, Settings

PAGE: Final = Path(__file__).parents[1] / "docs" / "settings.md"

_UNITS: Final = {"_seconds": "s", "_ms": "ms", "_bytes": "bytes", "_length": "characters"}
_TYPES: Final = {str: "text", Path: "path", int: "integer", float: "number", bool: "true, false"}
_FACTORY_DEFAULTS: Final = {"threads": "the CPU quota"}
_UNSET: Final = "unset"

_HEAD: Final = f"""# Settings
Each setting is a flag of `{PROGRAM}` and an environment variable; `make serve` and the container image pass the environment on.
Precedence: flag, environment, default. `make docs` writes this page from [service/settings.py](../service/settings.py).

```console
$ {PROGRAM} --grpc-address 127.0.0.1:50052 --slots 64
$ SEQSERVE_GRPC_ADDRESS=127.0.0.1:50052 SEQSERVE_SLOTS=64 {PROGRAM}
```

**A wrong value or an unknown variable stops the start** with exit status 2 and one line for each: the name, what is allowed, what was found.
Every variable that begins with `{PREFIX}` and is not in the table is unknown. Kubernetes sets such variables in pods beside a Service named
`seqserve` (`SEQSERVE_PORT`, `SEQSERVE_SERVICE_HOST`, ...): set `enableServiceLinks: false` in the pod. `SEQSERVE_SERVER` alone is left alone: it is the
address that the command `seqserve` and the Python client call.

| variable | flag | type | default | range | unit | meaning |
| --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501

_TAIL: Final = f"""
Where the text says "measured", *unset* means: measured when a model is loaded ([performance.md](performance.md)).

## Addresses
- `HOST:PORT`: the host is a name, an IPv4 address, or an IPv6 address in brackets (`[::1]:50051`). Of a name, gRPC and HTTP listen on every address that it
  resolves to: `localhost` is 127.0.0.1 and ::1, where there is IPv6. `0.0.0.0` is every IPv4 address, `[::]` every address of both kinds; `*` and an empty
  host are refused. With port 0 a free one is taken, the same on all addresses; the log event `listening` has it.
- `unix:PATH`, for gRPC alone: a path of at most 107 bytes, in a folder that the server may write. The server refuses to start where another listens or
  another kind of file is, replaces a socket that a killed server left, and at its end removes no socket but its own. Of several servers that start at the same
  moment one gets the path: they lock its folder meanwhile. Abstract sockets (`unix-abstract:`) are refused, since everybody can connect to them.
- The two ports must differ where the hosts overlap.

## Settings that depend on each other
- `{PREFIX}TLS_CERTIFICATE` and `{PREFIX}TLS_KEY`: set both or neither. `{PREFIX}TLS_CLIENT_CA` needs both. An address that other machines can
  reach needs TLS, or `{PREFIX}ALLOW_PLAINTEXT=true` ([security.md](security.md)).
- A request holds at most min(`{PREFIX}MAX_ITEMS`, `{PREFIX}MAX_WAITING`) texts or series, since all of them must fit into the queue.
- `{PREFIX}MAX_ANSWER_BYTES` above 4 MiB needs clients that take as much (`grpc.max_receive_message_length`, 4 MiB by default). The Python
  client and the command take 64 MiB.
- The orchestrator's time between SIGTERM and SIGKILL must be at least five seconds longer than `{PREFIX}GRACE_SECONDS` +
  `{PREFIX}DRAIN_SECONDS` ([resilience.md](resilience.md)).
- `{PREFIX}CONNECTION_GRACE_SECONDS` starts when a connection reaches `{PREFIX}CONNECTION_AGE_SECONDS`; without an age it has no effect. The
  Python client continues streams that are cut at its end.
- `{PREFIX}STATE_KEYS`: use the same file on every replica. Otherwise a state token opens only on the server that sealed it.
"""  # noqa: E501


def page() -> str:
    """Return the whole page."""
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
    """Name a type; an optional one is named by its inner type, since the default column says unset."""
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
    """Return the allowed values: "LOW to HIGH", or the words of a Literal."""
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
