"""The table of versions, and its changes. One bad version never stops another from serving.

Versions are admitted by one worker thread, one after the other; requests look things up in the event loop. A
version that is replaced or taken out drains: what has found it goes on there, and when nothing is left its
    engines end.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

import structlog

from service.contract import spec
from service.contract.files import FileRefused, read_inside
from service.engine.sequence import Post
from service.errors import InvalidArgument, ModelRefused, NotFound, NotReady, NotServed
from service.models.loading import Loader, Served, discover
from service.observability.metrics import Metrics
from service.settings import Settings

_log = structlog.get_logger(__name__)


class Status(Enum):
    """Where a version stands."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one version: its status, why it failed, and what takes its requests, if anything
    does.
    """

    name: str
    version: int
    status: Status
    message: str = ""
    served: Served | None = None

    @property
    def can_answer(self) -> bool:
        """Whether the version takes requests and none of its engines has failed."""
        return self.served is not None and not self.served.engine.has_failed


OnChange = Callable[[Entry], None]


class Repository:
    """Versions by name and number.

    Args:
        settings: folder, provider, variant, sizes.
        metrics: where loads and engines count.
        post: takes the engines' results.
    """

    def __init__(self, settings: Settings, metrics: Metrics, post: Post) -> None:
        self._settings = settings
        self._metrics = metrics
        self._loader = Loader(settings, metrics, post)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._on_change: OnChange = lambda entry: None  # noqa: ARG005
        self._lock = threading.Lock()
        newest = [
            Entry(name, versions[0], Status.LOADING)
            for name, versions in discover(settings.repository).items()
        ]
        self._entries = {(entry.name, entry.version): entry for entry in newest}
        # What requests have found; a new one with every change, so that nobody who looked before it keeps
        # what he found there.
        self._serving: dict[tuple[str, int, spec.Task], Served] = {}
        self._drains: dict[int, asyncio.Task[None]] = {}  # by the identity of what drains
        self._draining: list[Served] = []
        self._withheld: set[tuple[str, int]] = set()

    def entries(self) -> list[Entry]:
        """Everything known, by name, newest version first."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda entry: (entry.name, -entry.version))

    def load_all(self, on_change: OnChange) -> None:
        """Admit the newest versions of every model; where one is refused, the next older one is tried in its
        place.

        Args:
            on_change: called after each entry's change, now and later, in the thread that makes it.
        """
        self._on_change = on_change
        for entry in self.entries():
            on_change(entry)
        self._worker.submit(self._load_all).result()

    async def load(self, name: str, version: int) -> Entry:
        """Serve a version from the folder, beside or in place of those that serve: of a model the newest good
        ones go on, as many as are set.

        Args:
            name: of the model.
            version: 0: the newest on disk.

        Raises:
            NotFound: it is not on disk.
            NotServed: it was refused; whatever served before goes on.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._load, loop, name, version)

    async def unload(self, name: str, version: int) -> None:
        """Let a version take no more requests; wait until those in flight have finished.

        Args:
            name: of the model.
            version: 0: the newest that serves.

        Raises:
            NotFound: it does not serve.
        """
        await self._leave(self._unload, name, version)

    async def remove(self, name: str, version: int) -> None:
        """The same for a version whose folder is gone; where too few would serve without it, the next older
        ones on disk are loaded first.
        """
        await self._leave(self._remove, name, version)

    async def _leave(
        self, leave: Callable[[asyncio.AbstractEventLoop, str, int], Served | None], name: str, version: int
    ) -> None:
        loop = asyncio.get_running_loop()
        served = await loop.run_in_executor(self._worker, leave, loop, name, version)
        if (drain := self._drains.get(id(served))) is not None:
            # Whoever waits may leave; the draining goes on.
            await asyncio.shield(drain)

    async def drained(self) -> None:
        """Wait until nothing drains."""
        while self._drains:
            await asyncio.wait(self._drains.values())

    def wants(self, name: str, version: int) -> bool:
        """Whether a version is among the newest that are to serve, those that serve being good ones."""
        newer = [
            entry
            for entry in self.entries()
            if entry.name == name and entry.served is not None and entry.version > version
        ]
        return len(newer) < self._settings.versions

    def find(self, name: str, version: int, task: spec.Task) -> Served:
        """The version that a request means.

        Args:
            name: of the model.
            version: 0: the newest one that serves.
            task: what the request wants of it.

        Raises:
            InvalidArgument: no name, or a model for another task.
            NotFound, NotReady, NotServed: nothing serves under that name and version.
        """
        serving = self._serving
        served = serving.get((name, version, task))
        if served is None:
            served = serving[name, version, task] = self._look_up(name, version, task)
        return served

    def _look_up(self, name: str, version: int, task: spec.Task) -> Served:
        if not name:
            raise InvalidArgument("model", f"expected the name of a model ({self._names(task)}), found none")
        served = self.get(name, version).served
        if served is None:
            raise self._not_served(name, version)
        if served.spec.task != task:
            raise InvalidArgument(
                "model",
                f"expected a model for {task} ({self._names(task)}), found {name}, which is for {served.spec.task}",
            )
        return served

    def get(self, name: str, version: int) -> Entry:
        """What is known of a version.

        Args:
            name: of the model.
            version: 0: the newest one that serves, or the newest one where none does.

        Raises:
            NotFound: nothing is known; the text names what there is.
        """
        versions = [entry for entry in self.entries() if entry.name == name]
        if not versions:
            raise NotFound(f"model {name!r}: expected one of {self._names() or 'none'}, found no such model")
        if version == 0:
            return next((entry for entry in versions if entry.served is not None), versions[0])
        for entry in versions:
            if entry.version == version:
                return entry
        raise self._unknown(name, version)

    def is_alive(self) -> bool:
        """Whether every engine that serves or drains can go on."""
        return not any(served.engine.has_failed for served in self._all_served())

    def stop(self) -> None:
        """End what is being loaded, then every engine's thread."""
        self._loader.stop()
        self._worker.shutdown(cancel_futures=True)
        for served in self._all_served():
            served.engine.stop()

    def _all_served(self) -> list[Served]:
        with self._lock:
            return [
                *(entry.served for entry in self._entries.values() if entry.served is not None),
                *self._draining,
            ]

    def _unknown(self, name: str, version: int) -> NotFound:
        serving = (
            ", ".join(
                str(entry.version)
                for entry in self.entries()
                if entry.name == name and entry.served is not None
            )
            or "none"
        )
        return NotFound(
            f"model {name!r}: expected one of the versions that serve ({serving}), found {version}"
        )

    def _not_served(self, name: str, version: int) -> NotReady | NotServed | NotFound:
        entry = self.get(name, version)
        if entry.status is Status.LOADING:
            return NotReady(f"model {name} version {entry.version} is still loading")
        if entry.status is Status.DRAINING:
            return self._unknown(name, entry.version)
        return NotServed(f"model {name} version {entry.version} was refused: {entry.message}")

    def _names(self, task: spec.Task | None = None) -> str:
        entries = [
            entry
            for entry in self.entries()
            if task is None or (entry.served is not None and entry.served.spec.task == task)
        ]
        return ", ".join(dict.fromkeys(entry.name for entry in entries))

    # In the worker's thread.

    def _load_all(self) -> None:
        for name, versions in discover(self._settings.repository).items():
            good = 0
            for version in versions:
                self._change(Entry(name, version, Status.LOADING))
                entry = self._admit(name, version, is_serving=False)
                if entry.served is not None:
                    self._show(entry.served)
                self._change(entry)
                good += entry.status is Status.READY
                if good == self._settings.versions:
                    break

    def _load(self, loop: asyncio.AbstractEventLoop, name: str, version: int) -> Entry:
        on_disk = discover(self._settings.repository).get(name, [])
        if not on_disk or version not in (0, *on_disk):
            raise NotFound(
                f"model {name!r} on disk: expected one of versions ({', '.join(map(str, on_disk)) or 'none'}), found {version}"
            )
        version = version or on_disk[0]
        self._withheld.discard((name, version))
        before = self._entries.get((name, version))
        current = before.served if before is not None else None
        if before is not None and current is not None and self._is_unchanged(current):
            return before
        if current is None:
            self._change(Entry(name, version, Status.LOADING))
        entry = self._admit(name, version, is_serving=True)
        if entry.served is None:
            if before is not None and current is not None:
                self._change(
                    replace(
                        before, message=f"serves as it was; what is on disk now was refused: {entry.message}"
                    )
                )
            else:
                self._change(entry)
            raise NotServed(f"model {name} version {version} was refused: {entry.message}")
        serving = [
            one
            for one in self.entries()
            if one.name == name and one.served is not None and one.version != version
        ]
        newest = sorted([*serving, entry], key=lambda one: -one.version)[: self._settings.versions]
        # Only a newer version displaces: an older one that is asked for by number serves beside those that
        # are there.
        leaving = [one for one in serving if one not in newest and one.version < version]
        if current is not None:
            self._hide(current)
        self._show(entry.served)
        drains = [*map(_draining, leaving)]
        self._change(entry, *drains)
        for drain, one in zip(drains, leaving, strict=True):
            assert one.served is not None, "only what serves leaves"
            self._hide(one.served)
            self._drain(loop, one.served, drain)
        if current is not None:
            self._drain(loop, current, None)
        return entry

    def _unload(self, loop: asyncio.AbstractEventLoop, name: str, version: int) -> Served:
        entry = self.get(name, version)
        if entry.served is None:
            raise self._unknown(name, version)
        self._withheld.add((name, entry.version))
        drain = _draining(entry)
        self._change(drain)
        self._hide(entry.served)
        self._drain(loop, entry.served, drain)
        return entry.served

    def _remove(self, loop: asyncio.AbstractEventLoop, name: str, version: int) -> Served | None:
        entry = self.get(name, version)
        if entry.served is None:
            self._forget(entry)
            return None
        left = [
            one.version
            for one in self.entries()
            if one.name == name and one.served is not None and one.version != version
        ]
        known = {one.version for one in self.entries() if one.name == name}
        for older in discover(self._settings.repository).get(name, []):
            if len(left) >= self._settings.versions:
                break
            if older < version and older not in known and (name, older) not in self._withheld:
                try:
                    left.append(self._load(loop, name, older).version)
                except NotServed as refusal:
                    _log.warning(
                        "no older version in place of one that is gone",
                        model=name,
                        version=version,
                        reason=str(refusal),
                    )
        served = self._unload(loop, name, version)
        self._withheld.discard((name, version))
        return served

    def _is_unchanged(self, served: Served) -> bool:
        root = self._settings.repository
        path = root / served.spec.name / str(served.spec.version) / spec.SPEC_FILE
        try:
            return read_inside(path, root, spec.MOST_SPEC_BYTES) == served.spec_text.encode()
        except (FileNotFoundError, FileRefused):
            return False

    def _admit(self, name: str, version: int, *, is_serving: bool) -> Entry:
        try:
            served = self._loader.admit(
                self._settings.repository / name / str(version), is_serving=is_serving
            )
        except (spec.SpecError, ModelRefused) as error:
            check = error.check if isinstance(error, ModelRefused) else "spec"
            self._metrics.model_load_failures.labels(check).inc()
            _log.error("model refused", model=name, version=version, check=check, reason=str(error))
            return Entry(name, version, Status.FAILED, str(error))
        except Exception as error:
            self._metrics.model_load_failures.labels("unexpected").inc()
            _log.exception("model refused", model=name, version=version, check="unexpected")
            return Entry(
                name, version, Status.FAILED, f"check 'unexpected' failed: {type(error).__name__}: {error}"
            )
        served.engine.start()
        return Entry(name, version, Status.READY, served=served)

    def _change(self, *entries: Entry) -> None:
        """Make changes, all at once for whoever looks."""
        with self._lock:
            self._entries |= {(entry.name, entry.version): entry for entry in entries}
        self._serving = {}
        for entry in entries:
            self._on_change(entry)

    def _forget(self, entry: Entry) -> None:
        """Drop an entry, unless another has taken its place."""
        with self._lock:
            key = entry.name, entry.version
            if self._entries.get(key) is entry:
                del self._entries[key]
        self._serving = {}
        self._on_change(entry)

    def _show(self, served: Served) -> None:
        model, tuning = served.spec, served.tuning
        levels = (served.engine.slots, tuning.chunk, tuning.chunk_rows)
        self._metrics.show_model(model.name, model.version, served.info, levels, self._settings.max_waiting)
        _log.info(
            "model ready",
            model=model.name,
            version=model.version,
            task=model.task,
            variant=served.variant,
            golden_max_error=served.golden_max_error,
            slots=served.engine.slots,
            chunk=tuning.chunk,
            chunk_rows=tuning.chunk_rows,
            engines=len(served.engine),
            steps_per_second=round(tuning.steps_per_second),
        )

    def _hide(self, served: Served) -> None:
        self._metrics.hide_model(served.spec.name, served.spec.version, served.info)
        _log.info("model draining", model=served.spec.name, version=served.spec.version)

    def _drain(self, loop: asyncio.AbstractEventLoop, served: Served, entry: Entry | None) -> None:
        """Let what is no longer in the table come to its end. Only in the event loop is it known who has
        found it there before.
        """
        with self._lock:
            self._draining.append(served)
        loop.call_soon_threadsafe(self._begin_drain, served, entry)

    # In the event loop.

    def _begin_drain(self, served: Served, entry: Entry | None) -> None:
        drain = self._drains[id(served)] = asyncio.ensure_future(self._drained(served, entry))
        drain.add_done_callback(partial(self._end_drain, id(served)))

    def _end_drain(self, which: int, drain: "asyncio.Task[None]") -> None:
        del self._drains[which]
        if not drain.cancelled() and (error := drain.exception()) is not None:
            _log.error("draining failed", exc_info=error)

    async def _drained(self, served: Served, entry: Entry | None) -> None:
        await served.uses.none()
        await asyncio.to_thread(served.engine.stop)
        self._metrics.retire(served.spec.name, served.counts)
        with self._lock:
            self._draining = [one for one in self._draining if one is not served]
        if entry is not None:
            self._forget(entry)
        _log.info("model unloaded", model=served.spec.name, version=served.spec.version)


def _draining(entry: Entry) -> Entry:
    return Entry(entry.name, entry.version, Status.DRAINING)
