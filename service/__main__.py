"""Entry point. `python -m service --help` lists the settings."""

from service.signals import StopSignals

if __name__ == "__main__":
    # Before anything that takes time is imported: process 1 of a container loses a signal without a handler.
    signals = StopSignals()
    signals.hold()
    from service.contract.extras import require

    require("python -m service", "serve")
    from service.program import leave, main

    leave(main(signals))
