"""Which worker of `make test` runs what, and in which order.

A worker runs whole files, so that the tests of a file share its servers. Files that look at the same trained
networks go to one worker, which trains them once. The longest come first, so that the workers end together:
xdist would begin with the files of most tests.
"""

from typing import Any, Final

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

# Files and folders by the networks that they share.
TOGETHER: Final = {
    "the examples": ("tests/examples/",),
    "the lecture": ("tests/training/lecture/", "tests/integration/test_lecture.py"),
    "the shapes": ("tests/training/shapes/", "tests/integration/test_shapes.py"),
}
# More than 20 s of a worker's time each, on two cores.
LONGEST: Final = (
    "tests/docs/test_commands.py",
    "the lecture",
    "the shapes",
    "the examples",
    "tests/training/loop/test_parallel.py",
    "tests/integration/test_drain.py",
    "tests/integration/test_access.py",
    "tests/integration/test_hostile_models.py",
    "tests/integration/test_reload.py",
    "tests/integration/test_lifecycle.py",
    "tests/integration/test_damaged_models.py",
    "tests/integration/test_invariance.py",
    "tests/deploy/test_started.py",
)


def unit(nodeid: str) -> str:
    """Return what a worker takes as a whole: the file of a test, or the name of the files that it is with."""
    file = nodeid.partition("::")[0]
    return next((name for name, starts in TOGETHER.items() if file.startswith(starts)), file)


def place(nodeid: str) -> int:
    """Return the place of a test's unit among those that begin first; all others share the last one."""
    found = unit(nodeid)
    return LONGEST.index(found) if found in LONGEST else len(LONGEST)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # the library has no types
    """Gives units to workers in the order of collection."""

    def __init__(self, config: Any, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)
