"""Entry point. `python -m service --help` lists the settings; `python -m service check` checks a version."""

import os
import sys

from service.signals import StopSignals


def open_closed_streams() -> None:
    """Give each closed descriptor of 0 to 2 the null device, so that no socket takes its number.

    Whoever starts a daemon may close them, and libraries write to descriptor 2.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    # Python has no stream where the descriptor was closed.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 -- for the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 -- for the process


def check(arguments: list[str]) -> int:
    """Check a version folder, and return the exit status; an interrupt ends it at once."""
    open_closed_streams()
    from service.contract.extras import require  # noqa: PLC0415 -- not before the streams are open

    require("python -m service", "serve")
    from service.check import main  # noqa: PLC0415 -- after it is known that it can be imported

    return main(arguments)


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        sys.exit(check(sys.argv[2:]))
    # Before anything that takes time is imported: process 1 of a container loses a signal without a handler.
    signals = StopSignals()
    signals.hold()
    open_closed_streams()
    from service.contract.extras import require

    require("python -m service", "serve")
    from service.program import leave, main

    leave(main(signals))
