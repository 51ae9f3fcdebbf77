"""Lists the repository folder: the versions in it, the entries that are refused, and those that are ignored.

Every entry that is no version is accounted for. One is refused, and shown as FAILED, where it holds versions
that cannot be served under its name, or cannot be listed. One that holds no version is ignored, and named in
the log. Only directory listings and stat are used.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from service.contract import spec
from service.models.table import Entry, Status, VersionTable, first_of
from service.observability.metrics import Metrics

_log = structlog.get_logger(__name__)

VersionKey = tuple[str, int]
_MAX_DIGITS = len(str(spec.MAX_VERSION))
_NAME_RULE = "1..64 letters, digits, '.', '_' and '-', a letter or digit first"
_CHECK = "folder"


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries of the repository folder. Names to show are ASCII.

    Attributes:
        versions: versions of each model, newest first.
        refused: why an entry is refused, by the name to show and its newest version, 0 where none is known.
            A name that no model can have is quoted, so that it is no other model's name.
        ignored: why an entry is ignored, by its quoted path.
        unreadable: names of the models whose folders cannot be listed.
    """

    versions: dict[str, list[int]] = field(default_factory=dict)
    refused: dict[VersionKey, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)

    def refusal(self, name: str) -> str | None:
        """Return why all versions of a name are refused, None where they are not."""
        return next((reason for (refused, _), reason in self.refused.items() if refused == name), None)


def discover(root: Path) -> Listing:
    """List the repository folder.

    Raises:
        OSError: it is no folder, or cannot be listed.
    """
    listing = Listing()
    for path in sorted(root.iterdir()):
        reason = _not_a_folder(path)
        if reason is None:
            reason = _add_folder(listing, path)
        if reason is not None:
            listing.ignored[ascii(path.name)] = reason
    return listing


def _add_folder(listing: Listing, path: Path) -> str | None:
    """Add a folder's versions or its refusal to a listing; return why it is ignored, None where it is not."""
    is_model = spec.is_name(path.name)
    try:
        inside = sorted(path.iterdir())
    except FileNotFoundError:
        return "gone while it was looked at"
    except OSError as error:
        reason = f"expected a folder that can be listed, found {os.strerror(error.errno or 0)}"
        if not is_model:
            return reason
        listing.unreadable.add(path.name)
        listing.refused[path.name, 0] = reason
        return None
    odd = {one.name: why for one in inside if (why := _not_a_version(one)) is not None}
    if is_model:
        listing.ignored.update({ascii(f"{path.name}/{name}"): why for name, why in odd.items()})
    versions = sorted((int(one.name) for one in inside if one.name not in odd), reverse=True)
    if not versions:
        return "no folder of a version inside"
    if is_model:
        listing.versions[path.name] = versions
    else:
        listing.refused[ascii(path.name), versions[0]] = f"name: expected {_NAME_RULE}, found another name"
    return None


def _not_a_folder(path: Path) -> str | None:
    """Return why an entry is no folder to look into; None: it is one, or its use will tell why not."""
    if path.name.startswith("."):
        return "hidden"
    try:
        if path.is_dir():
            return None
        return "not a folder" if path.exists() else "a link that leads nowhere"
    except OSError:
        return None


def _not_a_version(path: Path) -> str | None:
    """Return why an entry of a model's folder is no version; None: it is one, or its load tells why not."""
    if (reason := _not_a_folder(path)) is not None:
        return reason
    if _is_version(path.name):
        return None
    return f"expected a version of 1..{spec.MAX_VERSION} without leading zeros"


def _is_version(name: str) -> bool:
    is_number = name.isascii() and name.isdecimal() and not name.startswith("0") and len(name) <= _MAX_DIGITS
    return is_number and int(name) <= spec.MAX_VERSION


class Folder:
    """The repository folder: lists it, and accounts for what is refused and ignored in it.

    Refused entries are shown as FAILED in the table while they are refused. Each refused and each ignored
    entry is logged once.

    Args:
        root: the folder.
        table: where refused entries are shown.
        metrics: counts refusals.

    Attributes:
        on_change: called after each change of the table.
    """

    def __init__(self, root: Path, table: VersionTable, metrics: Metrics) -> None:
        self._root = root
        self._table = table
        self._metrics = metrics
        self.on_change: Callable[[], None] = _ignore
        self._noted = Listing()
        self._shown: dict[VersionKey, Entry] = {}

    def list(self) -> Listing:
        """List the folder and note the result; a folder that is gone holds nothing.

        Raises:
            OSError: it cannot be listed.
        """
        try:
            listing = discover(self._root)
        except (FileNotFoundError, NotADirectoryError):
            return Listing()
        self.note(listing)
        return listing

    def note(self, listing: Listing) -> None:
        """Compare a listing with the one before; show and log what is new in it."""
        self._log(listing)
        self._noted = listing
        # What serves under a name goes on, and is shown alone.
        wanted = {
            (name, version): Entry(
                name, version, Status.FAILED, f"{_CHECK}: {reason}", details={"check": _CHECK}
            )
            for (name, version), reason in listing.refused.items()
            if not self._table.serving(name)
        }
        if wanted == self._shown:
            return
        for key, entry in self._shown.items():
            if wanted.get(key) != entry:
                self._table.remove(entry)
        self._shown = {key: self._shown.get(key, entry) for key, entry in wanted.items()}
        self._table.set(*self._shown.values())
        self.on_change()

    def why_nothing_serves(self) -> str:
        """Return why the known versions were refused, or what was found where there is none."""
        reasons = [
            f"{one.name} {one.version or ''}".rstrip() + f": {one.message}" for one in self._table.entries()
        ]
        if reasons:
            return first_of(reasons, "; ")
        if not self._noted.ignored:
            return "no model was found there"
        return f"no model was found there, and ignored are {first_of(_reasons(self._noted.ignored))}"

    def _log(self, listing: Listing) -> None:
        for name, version in listing.refused.keys() - self._noted.refused.keys():
            self._metrics.model_load_failures.labels(_CHECK).inc()
            reason = listing.refused[name, version]
            _log.error("model refused", model=name, version=version, check=_CHECK, reason=reason)
        new = {path: why for path, why in listing.ignored.items() if path not in self._noted.ignored}
        if new:
            _log.info(
                "entries of the repository are ignored", count=len(new), entries=first_of(_reasons(new))
            )


def _reasons(ignored: dict[str, str]) -> list[str]:
    return [f"{path} ({reason})" for path, reason in ignored.items()]


def _ignore() -> None:
    """Do nothing: no listener is set before the first load."""
