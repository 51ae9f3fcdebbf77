"""Admits versions: loads and starts one, or tells why it is refused: in its entry, the log and a metric."""

import asyncio

import structlog

from service.contract import spec
from service.errors import ModelRefused
from service.models.interface import Accept
from service.models.loading import Loader, OnFailure, Served
from service.models.refusals import refusal_of
from service.models.table import Entry, Status
from service.models.trial import Trial
from service.observability.metrics import Metrics
from service.settings import Settings

_log = structlog.get_logger(__name__)


class Admission:
    """Admits versions, one at a time; `stop` may be called in any thread, the rest in one.

    Args:
        settings: folder, provider, variant, sizes.
        metrics: counts refusals, and what engines do.
        loop: event loop of the callers.
        on_failure: called when an engine has failed.
        trial: tries versions; None: one of its own.

    Attributes:
        is_stopping: True once it was stopped.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        on_failure: OnFailure,
        trial: Trial | None = None,
    ) -> None:
        self._root = settings.repository
        self._metrics = metrics
        self._loader = Loader(settings, metrics, loop, on_failure, trial)
        self.is_stopping = False

    def stop(self) -> None:
        """End what is being loaded, and admit nothing more."""
        self.is_stopping = True
        self._loader.stop()

    def end_trial(self) -> None:
        """End the process of the trials; the next trial starts another one."""
        self._loader.end_trial()

    def admit_alone(self, name: str, version: int, accept: Accept) -> Entry:
        """Admit a version as `admit` does, and end the process of its trial."""
        try:
            return self.admit(name, version, accept)
        finally:
            self.end_trial()

    def admit(self, name: str, version: int, accept: Accept) -> Entry:
        """Load a version and start it; the entry says why where it is refused.

        Args:
            name: name of the model.
            version: number of the version.
            accept: told the version's model.json once it has passed its trial; raises ModelRefused unless it
                may serve.
        """
        try:
            return Entry(name, version, Status.READY, served=self._started(name, version, accept))
        except Exception as error:
            refusal = refusal_of(error)
            entry = Entry(name, version, Status.FAILED, refusal.text, details=refusal.details)
            if self.is_stopping:  # which ended the load, so that nothing is wrong with the version
                return entry
            self._metrics.model_load_failures.labels(refusal.check).inc()
            _log.error(
                "model refused",
                model=name,
                version=version,
                check=refusal.check,
                reason=refusal.text,
                exc_info=None if refusal.is_foreseen else error,
            )
            return entry

    def warn_of_change(self, name: str, newer: int, older: int) -> None:
        """Log a warning if two versions on disk have different interfaces, or cannot be compared."""
        folder = self._root / name
        try:
            found = self._loader.difference(folder / str(newer), folder / str(older))
        except (spec.SpecError, ModelRefused) as error:
            found = f"not known, since they cannot be compared: {refusal_of(error).text}"
        if found and not self.is_stopping:
            _log.warning(
                "interface differs from an older version",
                model=name,
                version=newer,
                older=older,
                difference=found,
            )

    def _started(self, name: str, version: int, accept: Accept) -> Served:
        served = self._loader.load(self._root / name / str(version), accept)
        try:
            served.start()
        except BaseException:  # there are no threads to be had
            served.stop()
            self._metrics.retire(name, served.counts)
            raise
        return served
