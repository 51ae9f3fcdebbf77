"""The program of a trial's child process.

    python -m service.models.trial_child PARENT BYTES SECONDS

It reads lines of JSON from standard input: `Choices` first, then lists of one or two folders of versions,
and writes one line of JSON for each list. One folder is tried, and the answer is `Tried`; two have their
interfaces compared, and the answer is a sentence on the difference. Instead of either it may be the check
that failed. An object with a folder as `examined` has that version tried, and is answered by a line with
`passed` for each check that the version passes, at once, and then as before. What libraries print goes to
standard error.

The kernel holds its limits, whatever its code does: memory by RLIMIT_DATA, a trial's time by an alarm that
ends the process, and its life by PR_SET_PDEATHSIG, which kills it when the server ends. Memory and life are
bounded before anything but the standard library is imported.
"""

import ctypes
import gc
import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from service.models.checklist import Passed, Tell
    from service.models.choices import Choices
    from service.models.preparing import Prepared

_PR_SET_PDEATHSIG = 1
# The server ends a trial at its time limit; the alarm follows if it did not.
_ALARM_AFTER_S = 5.0
_MAX_OUTPUT_BYTES = 1 << 20  # of standard error, which is a file
_OOM_SCORE = "1000"  # the kernel's first choice where a container's memory is used up


def bound(parent: int, max_bytes: int) -> None:
    """Have the kernel end this process with its parent, and bound its memory and what it prints."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before the call
        os._exit(1)
    os.setsid()  # an interrupt at the terminal is the server's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, _MAX_OUTPUT_BYTES)
    # Unlike RLIMIT_AS it counts no address space that libraries only reserve.
    _lower(resource.RLIMIT_DATA, max_bytes)
    with suppress(OSError):  # where /proc cannot be written, the limits above have to do
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _lower(kind: int, limit: int) -> None:
    """Set a limit, or keep a lower one that the server has itself and that cannot be raised."""
    hard = resource.getrlimit(kind)[1]
    lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (lowest, lowest))


def main(arguments: list[str]) -> None:
    """Try one version after the other until standard input ends."""
    parent, max_bytes, seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    bound(parent, max_bytes)
    answers = _take_stdout()
    from service.models.choices import Choices  # noqa: PLC0415 -- after the limits are set
    from service.models.preparing import Preparation  # noqa: F401, PLC0415 -- while the server starts

    choices = Choices(**json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        # Only while it is asked: it may be idle for as long as the server has nothing to try.
        signal.setitimer(signal.ITIMER_REAL, seconds + _ALARM_AFTER_S)
        _write(answers, _answer(choices, json.loads(line), answers))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(choices: "Choices", question: Any, answers: TextIO) -> dict[str, Any]:
    if not isinstance(question, dict):
        return outcome(choices, *map(Path, question))

    def tell(passed: "Passed") -> None:
        _write(answers, {"passed": [passed.check, dict(passed.measured), passed.is_needed]})

    return outcome(choices, Path(question["examined"]), tell=tell)


def _write(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")


def _take_stdout() -> TextIO:
    """Return standard output for answers alone; whatever else writes to it writes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def outcome(
    choices: "Choices", folder: Path, older: Path | None = None, *, tell: "Tell | None" = None
) -> dict[str, Any]:
    """Prepare a version, or compare it with an older one, and return the answer to the server.

    Args:
        choices: what a preparation depends on.
        folder: .../<name>/<version>.
        older: folder of the version to compare with; None: it is prepared.
        tell: told each check that is passed, with what the version costs; None: nobody asks.
    """
    from service.contract import spec  # noqa: PLC0415 -- after the limits are set
    from service.errors import ModelRefused  # noqa: PLC0415
    from service.models.checklist import tell_nobody  # noqa: PLC0415
    from service.models.interface import difference  # noqa: PLC0415
    from service.models.memory import return_freed  # noqa: PLC0415
    from service.models.preparing import Preparation  # noqa: PLC0415
    from service.models.tried import Tried  # noqa: PLC0415

    try:
        if older is not None:
            return {"difference": difference(*(spec.read_document(one)[0] for one in (older, folder)))}
        prepared = Preparation(choices).run(folder, tell=tell or tell_nobody)
        if tell is not None:
            _tell_costs(prepared, tell)
        return {"tried": Tried(spec.hash_of(prepared.text), prepared.batch_invariant)}
    except spec.SpecError as error:
        return {"check": "spec", "found": str(error)}
    except ModelRefused as error:
        # onnxruntime reports a lack of memory in its message only.
        if "bad_alloc" in error.found or "allocate memory" in error.found:
            return {"check": "trial", "found": error.found}
        return {"check": error.check, "expected": error.expected, "found": error.found}
    except MemoryError:
        return {"check": "trial", "found": "more memory"}
    finally:
        gc.collect()
        return_freed()


def _tell_costs(prepared: "Prepared", tell: "Tell") -> None:
    """Tell what a time step costs, alone and in the widest tick, and the memory that the trial took."""
    from service.memory import peak_resident_bytes  # noqa: PLC0415 -- after the limits are set
    from service.models.checklist import Passed  # noqa: PLC0415
    from service.models.kinds import seconds_of_one  # noqa: PLC0415

    tuning = prepared.tuning
    costs = {
        "microseconds_alone": 1e6 * seconds_of_one(prepared.spec, prepared.runtime),
        "microseconds_widest": 1e6 / tuning.steps_per_second,
        "rows": tuning.chunk_rows,
    }
    tell(Passed("warm-up", costs))
    tell(Passed("trial", {"memory_bytes": peak_resident_bytes()}))


if __name__ == "__main__":
    main(sys.argv[1:])
