"""The program: reads the settings, sets up the log, and runs the server in its event loop."""

import asyncio
import gc
import os
import sys
import threading
from typing import NoReturn

import structlog

from service.models.choices import PREPARING
from service.models.trial import Trial
from service.observability.hooks import log_loop_errors
from service.observability.logs import print_line, set_up_logging
from service.settings import Settings, SettingsRefused, read_settings
from service.signals import StopSignals

# An engine thread that returns from onnxruntime needs the interpreter lock. Python's default switch interval
# would let a busy event loop keep it for 5 ms.
SWITCH_INTERVAL_S = 0.0005
# Objects made before a collection of the youngest ones. Python's default of 700 is reached every few calls,
# and each hundredth collection walks all objects, which takes tens of milliseconds.
GC_THRESHOLDS = (10_000, 20, 50)
# Seconds for a preparation that was cancelled to end.
LEAVE_S = 1.0


def main(signals: StopSignals) -> int:
    """Run the service.

    Args:
        signals: signals to stop, which are held already.

    Returns:
        0 after a stop, 1 if no model can be served, 2 for a wrong setting.
    """
    try:
        settings = read_settings(sys.argv[1:])
    except SettingsRefused as error:
        sys.stderr.write(f"{error}\n")
        return 2
    set_up_logging(settings.log_format, settings.log_level)
    if signals.have_come:
        return _stopped_early()
    trial = Trial(settings)
    trial.begin()  # its process imports what it needs while this one does
    try:
        return serve(settings, trial, signals)
    finally:
        trial.close()


def serve(settings: Settings, trial: Trial, signals: StopSignals) -> int:
    """Run the server until it is stopped; return 0 after a stop, 1 if no model can be served."""
    from service.parts import StartError  # noqa: PLC0415 -- after the process of the trials was started
    from service.server import Server  # noqa: PLC0415
    from service.transport.loop import CompletionLoop  # noqa: PLC0415

    async def run() -> None:
        loop = asyncio.get_running_loop()
        log_loop_errors(loop)
        try:
            await Server(settings, trial).run(signals)
        finally:
            signals.ignore(loop)

    if signals.have_come:
        return _stopped_early()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # What the imports made stays for good; no collection has to look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        with asyncio.Runner(loop_factory=CompletionLoop) as runner:
            runner.run(run())
    except StartError as error:
        print_line(str(error))
        return 1
    return 0


def _stopped_early() -> int:
    structlog.get_logger(__name__).info("stopped before it listened", process=os.getpid())
    return 0


def leave(status: int) -> NoReturn:
    """End the process.

    A preparation that hangs in onnxruntime cannot be ended, and would abort an orderly exit: it is left out.
    """
    for thread in threading.enumerate():
        if thread.name == PREPARING:
            thread.join(LEAVE_S)
            if thread.is_alive():
                sys.stderr.flush()
                os._exit(status)
    sys.exit(status)
