"""Settings -> server; nothing else. `python -m service --help` lists the settings."""

import sys

import uvloop

from service.observability.logs import set_up_logging
from service.server import Server, StartError
from service.settings import Settings, SettingsRefused, read_settings

# An engine's thread that comes back from onnxruntime asks for the interpreter; it should not wait 5 ms,
# Python's default, for a busy network loop.
SWITCH_INTERVAL_S = 0.0005


async def serve(settings: Settings) -> None:
    """Run the server in this event loop until it is told to stop."""
    await Server(settings).run()


def main() -> int:
    """Exit status: 0 after a drained stop, 1 when no model could be served, 2 for a wrong setting."""
    try:
        settings = read_settings(sys.argv[1:])
    except SettingsRefused as error:
        sys.stderr.write(f"{error}\n")
        return 2
    set_up_logging(settings.log_format, settings.log_level)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        uvloop.run(serve(settings))
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
