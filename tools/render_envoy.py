"""Write the pod's configuration of Envoy: `python -m tools.render_envoy`, or `make docs`.

In a pod Envoy listens on every address, on one's own machine on loopback; the rest of the file is the same.
Neither Envoy nor Kustomize can replace one line of it, so the component holds a copy of
deploy/envoy/envoy.yaml.
"""

from pathlib import Path
from typing import Final

_DEPLOY: Final = Path(__file__).parents[1] / "deploy"
ENVOY: Final = _DEPLOY / "envoy" / "envoy.yaml"
POD_ENVOY: Final = _DEPLOY / "kubernetes" / "components" / "envoy" / "envoy.yaml"

_HEAD: Final = "# Made from deploy/envoy/envoy.yaml by `make docs`.\n"
_LISTEN: Final = "socket_address: {address: 127.0.0.1, port_value: 8081}"


def pod_envoy() -> str:
    """Return the pod's configuration as text.

    Raises:
        ValueError: the line with the address is not in the file once.
    """
    text = ENVOY.read_text()
    if text.count(_LISTEN) != 1:
        raise ValueError(f"{ENVOY}: expected {_LISTEN!r} once, found it {text.count(_LISTEN)} times")
    return _HEAD + text.replace(_LISTEN, _LISTEN.replace("127.0.0.1", "0.0.0.0"))  # noqa: S104 - in a pod


if __name__ == "__main__":
    POD_ENVOY.write_text(pod_envoy())
