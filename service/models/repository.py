"""Changes of the table of versions: load, replace, unload, drain, restart.

One bad version never stops another from serving. Versions are loaded by one worker thread, one after the
other; requests look them up in the event loop. A version that is replaced or taken out drains: what has found
it goes on there, and when nothing is left its engines end.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import structlog

from service.contract import spec
from service.contract.files import FileRefused, read_inside
from service.errors import NotFound, NotServed
from service.models.admission import Admission
from service.models.draining import Drains
from service.models.folder import Folder, Listing, discover
from service.models.interface import Accept, accept_any, accept_same
from service.models.loading import Served
from service.models.table import Entry, Status, VersionTable
from service.models.trial import Trial
from service.observability.metrics import Metrics
from service.settings import Settings

_log = structlog.get_logger(__name__)

# A version whose engine fails is loaded anew so many times within so many seconds; then it stays failed, and
# liveness with it.
MAX_RESTARTS = 3
RESTART_WINDOW_S = 600.0

OnChange = Callable[[], None]


class Repository:
    """The versions that serve, and their changes.

    Args:
        settings: folder, provider, variant, sizes.
        metrics: counts loads, and what engines do.
        loop: event loop of the callers.
        trial: tries versions; None: one of its own.

    Attributes:
        table: versions by name and number; `find` is what requests need.

    Raises:
        OSError: the folder cannot be listed.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        trial: Trial | None = None,
    ) -> None:
        self.table = VersionTable()
        self._settings = settings
        self._metrics = metrics
        self._loop = loop
        self._admission = Admission(settings, metrics, loop, self._restart_soon, trial)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._on_change: OnChange = _ignore
        self._drains = Drains(metrics, loop, self._forget)
        self._withheld: set[tuple[str, int]] = set()
        self._restarts: dict[tuple[str, int], deque[float]] = {}
        self._restarting: set[tuple[str, int]] = set()
        self._folder = Folder(settings.repository, self.table, metrics)
        for name, versions in discover(settings.repository).versions.items():
            self.table.set(Entry(name, versions[0], Status.LOADING))

    def load_all(self, on_change: OnChange) -> None:
        """Load the newest versions of every model; where one is refused, the next older one is tried.

        Args:
            on_change: called after each change, now and later, in the thread that makes it.
        """
        self._on_change = self._folder.on_change = on_change
        on_change()
        self._worker.submit(self._load_all).result()

    async def load(self, name: str, version: int, *, allow_interface_change: bool = False) -> Entry:
        """Serve a version from the folder, beside or in place of those that serve.

        Of a model the newest good versions go on, as many as are set.

        Args:
            name: name of the model.
            version: 0: the newest on disk.
            allow_interface_change: whether it may differ in what callers send and get from the version that
                serves; the setting of this name allows it always.

        Raises:
            NotFound: it is not on disk.
            NotServed: it was refused; whatever served before goes on.
        """
        load = partial(self._load, name, version, allow_interface_change=allow_interface_change)
        return await self._loop.run_in_executor(self._worker, load)

    async def note(self, listing: Listing) -> None:
        """Show what a listing of the folder refuses, and log what is new in it."""
        await self._loop.run_in_executor(self._worker, self._folder.note, listing)

    async def unload(self, name: str, version: int) -> None:
        """Let a version take no more requests; wait until those in flight have finished.

        Args:
            name: name of the model.
            version: 0: the newest that serves.

        Raises:
            NotFound: it does not serve.
        """
        await self._take_out(self._unload, name, version)

    async def remove(self, name: str, version: int) -> None:
        """Unload a version whose folder is gone; load older ones first where too few would serve."""
        await self._take_out(self._remove, name, version)

    async def _take_out(self, take: Callable[[str, int], Served | None], name: str, version: int) -> None:
        served = await self._loop.run_in_executor(self._worker, take, name, version)
        if served is not None:
            await self._drains.wait_for(served)

    async def drained(self) -> None:
        """Wait until nothing drains."""
        await self._drains.wait_for_all()

    def wants(self, name: str, version: int) -> bool:
        """Return whether a version is among the newest that are to serve, given those that serve."""
        newer = [entry for entry in self.table.serving(name) if entry.version > version]
        return len(newer) < self._settings.versions

    def is_alive(self) -> bool:
        """Return whether every engine that serves can go on, or its model is being loaded anew."""
        return not any(
            entry.served is not None
            and not entry.can_answer
            and (entry.name, entry.version) not in self._restarting
            for entry in self.table.entries()
        )

    def why_nothing_serves(self) -> str:
        """Return why the known versions were refused, or what was found where there is none."""
        return self._folder.why_nothing_serves()

    def stop(self) -> None:
        """End what is being loaded, then every engine's driver."""
        self._admission.stop()
        self._worker.shutdown(cancel_futures=True)
        serving = [entry.served for entry in self.table.entries() if entry.served is not None]
        for served in (*serving, *self._drains.draining):
            served.stop()

    # In the worker's thread.

    def _load_all(self) -> None:
        """Load the newest version of every model, then older ones where one is refused or more are to serve.

        So the bad versions of one model delay no other by more than the time of one trial.
        """
        found = self._folder.list().versions
        left = {name: iter(versions) for name, versions in found.items()}
        while left:
            for name, versions in list(left.items()):
                version = next(versions, None)
                if version is None or len(self.table.serving(name)) >= self._settings.versions:
                    del left[name]
                else:
                    self._load_first(name, version)
        if not self._settings.allow_interface_change:
            for name in found:
                self._warn_of_change(name, found[name])
        self._admission.end_trial()

    def _warn_of_change(self, name: str, versions: list[int]) -> None:
        """Warn where the version that serves has another interface than the next older one on disk.

        At the start nothing serves yet that callers rely on, so that nothing is refused for its interface.
        """
        newest = next(iter(self.table.serving(name)), None)
        older = next((one for one in versions if newest is not None and one < newest.version), None)
        if newest is not None and older is not None:
            self._admission.warn_of_change(name, newest.version, older)

    def _load_first(self, name: str, version: int) -> None:
        self._set(Entry(name, version, Status.LOADING))
        entry = self._admission.admit(name, version, accept_any)
        if entry.served is not None:
            self._announce(entry.served)
        self._set(entry)

    def _load(self, name: str, version: int, *, allow_interface_change: bool = False) -> Entry:
        listing = self._folder.list()
        on_disk = listing.versions.get(name, [])
        if (reason := listing.refusal(name)) is not None:
            raise NotServed(f"model {name} was refused: {reason}", {"check": "folder"})
        if not on_disk or version not in (0, *on_disk):
            found = ", ".join(map(str, on_disk)) or "none"
            raise NotFound(f"model {name!r} on disk: expected one of versions ({found}), found {version}")
        version = version or on_disk[0]
        self._withheld.discard((name, version))
        before = self.table.entry(name, version)
        current = before.served if before is not None else None
        if before is not None and current is not None and before.can_answer and self._is_unchanged(current):
            return before
        if current is None:
            self._set(Entry(name, version, Status.LOADING))
        accept = accept_any if allow_interface_change else self._acceptance(name, current)
        entry = self._admission.admit_alone(name, version, accept)
        if entry.served is None:
            if before is not None and current is not None:
                message = f"serves as it was; what is on disk now was refused: {entry.message}"
                self._set(replace(before, message=message))
            else:
                self._set(entry)
            raise NotServed(f"model {name} version {version} was refused: {entry.message}", entry.details)
        self._replace(current, entry)
        return entry

    def _acceptance(self, name: str, current: Served | None) -> Accept:
        """Return what accepts a version beside those that serve.

        Args:
            name: name of the model.
            current: what serves under the version's number; None: nothing, so that the version is to have
                the interface of the newest that serves, which requests without a version get.
        """
        serving = [current, *(entry.served for entry in self.table.serving(name))]
        reference = next((one for one in serving if one is not None), None)
        if reference is None or self._settings.allow_interface_change:
            return accept_any
        return accept_same(reference.spec)

    def _replace(self, current: Served | None, entry: Entry) -> None:
        """Let a loaded version serve in place of its former self and of surplus older versions."""
        assert entry.served is not None, "it was loaded"
        serving = [one for one in self.table.serving(entry.name) if one.version != entry.version]
        newest = sorted([*serving, entry], key=lambda one: -one.version)[: self._settings.versions]
        # Only a version that is new displaces, and only older ones: one that is asked for by number serves
        # beside those that are there, and goes on when one of them is loaded anew.
        surplus = [one for one in serving if one not in newest and one.version < entry.version]
        leaving = surplus if current is None else []
        if current is not None:
            self._withdraw(current)
        self._announce(entry.served)
        drains = [Entry(one.name, one.version, Status.DRAINING) for one in leaving]
        self._set(entry, *drains)
        for drain, one in zip(drains, leaving, strict=True):
            assert one.served is not None, "only what serves leaves"
            self._withdraw(one.served)
            self._drain(one.served, drain)
        if current is not None:
            self._drain(current, None)

    def _unload(self, name: str, version: int) -> Served:
        entry = self.table.get(name, version)
        if entry.served is None:
            raise self.table.unknown(name, version)
        self._withheld.add((name, entry.version))
        drain = Entry(entry.name, entry.version, Status.DRAINING)
        self._set(drain)
        self._withdraw(entry.served)
        self._drain(entry.served, drain)
        return entry.served

    def _remove(self, name: str, version: int) -> Served | None:
        entry = self.table.get(name, version)
        if entry.served is None:
            self._forget(entry)
            return None
        left = [one.version for one in self.table.serving(name) if one.version != version]
        # What drains takes no requests, and is loaded anew beside its former self.
        known = {
            one.version
            for one in self.table.entries()
            if one.name == name and one.status is not Status.DRAINING
        }
        for older in self._folder.list().versions.get(name, []):
            if len(left) >= self._settings.versions:
                break
            if older < version and older not in known and (name, older) not in self._withheld:
                try:
                    left.append(self._load(name, older).version)
                except NotServed as refusal:
                    _log.warning(
                        "no older version in place of one that is gone",
                        model=name,
                        version=version,
                        reason=str(refusal),
                    )
        served = self._unload(name, version)
        self._withheld.discard((name, version))
        return served

    def _restart(self, name: str, version: int) -> None:
        """Load a version anew whose engine has failed, unless that has happened too often.

        Engines that fail together ask several times; by the second time the version can answer again.
        """
        key = (name, version)
        try:
            entry = self.table.entry(name, version)
            if entry is None or entry.served is None or entry.can_answer:
                return
            if not self._may_restart(key):
                _log.error("engine failed too often and stays stopped", model=name, version=version)
                message = f"its engine has failed more than {MAX_RESTARTS} times in {RESTART_WINDOW_S:g} s"
                self._set(replace(entry, status=Status.FAILED, message=message))
                return
            loaded = self._admission.admit_alone(name, version, self._acceptance(name, entry.served))
            if loaded.served is None:
                if self._admission.is_stopping:
                    return
                _log.error("engine not restarted", model=name, version=version, reason=loaded.message)
                return
            self._metrics.engine_restarts.labels(name).inc()
            self._replace(entry.served, loaded)
            _log.warning("engine restarted", model=name, version=version)
        except Exception:
            _log.exception("engine not restarted", model=name, version=version)
        finally:
            self._restarting.discard(key)

    def _may_restart(self, key: tuple[str, int]) -> bool:
        """Count a failure; return whether there were few enough of late."""
        now = time.monotonic()
        times = self._restarts.setdefault(key, deque(maxlen=MAX_RESTARTS))
        if len(times) == MAX_RESTARTS and now - times[0] < RESTART_WINDOW_S:
            return False
        times.append(now)
        return True

    def _is_unchanged(self, served: Served) -> bool:
        root = self._settings.repository
        path = root / served.spec.name / str(served.spec.version) / spec.SPEC_FILE
        try:
            return read_inside(path, root, spec.MAX_SPEC_BYTES) == served.spec_text.encode()
        except (FileNotFoundError, FileRefused):
            return False

    def _set(self, *entries: Entry) -> None:
        self.table.set(*entries)
        self._on_change()

    def _forget(self, entry: Entry) -> None:
        self.table.remove(entry)
        self._on_change()

    def _announce(self, served: Served) -> None:
        """Show a version that begins to serve in the metrics and the log."""
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
            driver=tuning.driver,
            tick_seconds=round(tuning.tick_s, 6),
            steps_per_second=round(tuning.steps_per_second),
        )

    def _withdraw(self, served: Served) -> None:
        """Take a version that serves no more out of the metrics."""
        self._metrics.hide_model(served.spec.name, served.spec.version, served.info)
        _log.info("model draining", model=served.spec.name, version=served.spec.version)

    def _drain(self, served: Served, entry: Entry | None) -> None:
        """End a version once nothing needs it, which only the event loop knows."""
        self._loop.call_soon_threadsafe(self._drains.begin, served, entry)

    # In any thread.

    def _restart_soon(self, name: str, version: int) -> None:
        """Have a version loaded anew whose engine has failed."""
        self._restarting.add((name, version))
        try:
            self._worker.submit(self._restart, name, version)
        except RuntimeError:  # the worker is shut down, and so is the server
            self._restarting.discard((name, version))
        self._on_change()


def _ignore() -> None:
    """Do nothing: no listener is set before the first load."""
