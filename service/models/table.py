"""The table of versions: what is known of each, and which one a request means."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from service.contract import spec
from service.errors import InvalidArgument, NotFound, NotReady, NotServed, shown
from service.models.loading import Served

_MAX_NAMED = 20  # models in an error's text


class Status(Enum):
    """The stages of a version."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One version: its status, why it failed, and what takes its requests, None where nothing does.

    Version 0 stands for the unknown versions of a folder that cannot be listed.

    Attributes:
        details: why it failed, for programs: the check, what it expected and what it found.
    """

    name: str
    version: int
    status: Status
    message: str = ""
    served: Served | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def can_answer(self) -> bool:
        """True if the version takes requests and none of its engines has failed."""
        return self.served is not None and not self.served.engine.has_failed


class VersionTable:
    """Versions by name and number. One thread changes it, any thread reads it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, int], Entry] = {}
        # What requests have found. A change replaces it, so that nothing found before is found again.
        self._found: dict[tuple[str, int, tuple[spec.Task, ...]], Served] = {}

    def entries(self) -> list[Entry]:
        """Return everything known, by name, newest version first."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: (entry.name, -entry.version))

    def serving(self, name: str) -> list[Entry]:
        """Return the versions of a model that take requests, newest first."""
        return [entry for entry in self.entries() if entry.name == name and entry.served is not None]

    def entry(self, name: str, version: int) -> Entry | None:
        """Return what is known of exactly this version."""
        return self._entries.get((name, version))

    def set(self, *entries: Entry) -> None:
        """Make changes, all at once for whoever reads."""
        with self._lock:
            self._entries |= {(entry.name, entry.version): entry for entry in entries}
        self._found = {}

    def remove(self, entry: Entry) -> None:
        """Forget an entry, unless another has taken its place."""
        with self._lock:
            key = entry.name, entry.version
            if self._entries.get(key) is entry:
                del self._entries[key]
        self._found = {}

    def find(self, name: str, version: int, *tasks: spec.Task) -> Served:
        """Return the version that a request means.

        Args:
            name: name of the model.
            version: 0: the newest one that serves.
            tasks: tasks whose models can answer the request.

        Raises:
            InvalidArgument: no name, or a model for another task.
            NotFound, NotReady, NotServed: nothing serves under that name and version.
        """
        found = self._found
        served = found.get((name, version, tasks))
        if served is None:
            served = found[name, version, tasks] = self._look_up(name, version, tasks)
        return served

    def _look_up(self, name: str, version: int, tasks: tuple[spec.Task, ...]) -> Served:
        if not name:
            names = self._names(tasks) or "none serves"
            raise InvalidArgument("model", f"expected the name of a model ({names}), found none")
        entry = self.get(name, version)
        if entry.served is None:
            raise self._not_served(entry)
        if entry.served.spec.task not in tasks:
            raise InvalidArgument(
                "model",
                f"expected a model for {' or '.join(tasks)} ({self._names(tasks) or 'none serves'}), "
                f"found {name}, which is for {entry.served.spec.task}",
            )
        return entry.served

    def get(self, name: str, version: int) -> Entry:
        """Return what is known of a version.

        Args:
            name: name of the model.
            version: 0: the newest one that serves, or the newest one where none does.

        Raises:
            NotFound: nothing is known; the text names what there is.
        """
        versions = [entry for entry in self.entries() if entry.name == name]
        if not versions:
            raise NotFound(
                f"model {shown(name)}: expected one of {self._names() or 'none'}, found no such model"
            )
        if version == 0:
            return next((entry for entry in versions if entry.served is not None), versions[0])
        for entry in versions:
            if entry.version == version:
                return entry
        raise self.unknown(name, version)

    def unknown(self, name: str, version: int) -> NotFound:
        """Return the error for a version that does not serve."""
        serving = ", ".join(str(entry.version) for entry in self.serving(name)) or "none"
        return NotFound(
            f"model {shown(name)}: expected one of the versions that serve ({serving}), found {version}"
        )

    def _not_served(self, entry: Entry) -> NotReady | NotServed | NotFound:
        if entry.status is Status.LOADING:
            return NotReady(f"model {entry.name} version {entry.version} is still loading")
        if entry.status is Status.DRAINING:
            return self.unknown(entry.name, entry.version)
        version = f" version {entry.version}" if entry.version else ""
        return NotServed(f"model {entry.name}{version} was refused: {entry.message}", entry.details)

    def _names(self, tasks: Sequence[spec.Task] = ()) -> str:
        """Return the names for an error's text, those that serve first."""
        entries = sorted(self.entries(), key=lambda entry: entry.served is None)
        names = (
            entry.name
            for entry in entries
            if not tasks or (entry.served is not None and entry.served.spec.task in tasks)
        )
        return first_of(list(dict.fromkeys(names)))


def first_of(texts: Sequence[str], separator: str = ", ") -> str:
    """Join the first few texts; the end says how many there are besides."""
    joined = separator.join(texts[:_MAX_NAMED])
    return f"{joined} and {len(texts) - _MAX_NAMED} more" if len(texts) > _MAX_NAMED else joined
