"""Reads the source of `seqserve generate`: what the model's encoder gets before the text."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqserve.cli.observations import read_bytes, series_name
from seqserve.cli.session import UsageError, decode_argument
from seqserve.cli.texts import read_whole
from seqserve.client import Client
from seqserve.results import ModelInfo
from seqserve.tables.errors import TableError


@dataclass(frozen=True, slots=True)
class SourceGiven:
    """The options of a source.

    Attributes:
        text: --source: a text; None: not given.
        file: --source-file: the file of one; None: not given.
    """

    text: str | None
    file: Path | None

    @property
    def is_given(self) -> bool:
        """True if there is a source."""
        return self.text is not None or self.file is not None

    def read(self, client: Client, model: str, version: int) -> Any:
        """Return what the client takes for the source; None: there is none.

        Args:
            client: Asked for the kind of source, where a file does not tell.
            model: Name of the model.
            version: Its version.

        Raises:
            UsageError: Both options are given, or the file cannot be read or understood.
        """
        if self.text is not None and self.file is not None:
            raise UsageError("--source: expected it or --source-file, found both")
        if self.text is not None:
            return decode_argument(self.text, "--source")
        if self.file is None:
            return None
        if takes_text(client.model(model, version)):
            return read_whole(self.file).text
        return _read_json(self.file)


def source_section(model: ModelInfo) -> dict[str, Any]:
    """Return what model.json says of the source that the model's encoder reads; {}: it has no encoder."""
    init = model.spec.get("init")
    source = init.get("source") if isinstance(init, dict) else None
    return source if isinstance(source, dict) else {}


def takes_text(model: ModelInfo) -> bool:
    """Return whether a source may be a text; the server refuses one for a model without an encoder."""
    section = source_section(model)
    return not section or section.get("text") is not None


def _read_json(file: Path) -> Any:
    """Read token ids, or rows of numbers; the client checks them.

    Raises:
        UsageError: The file cannot be read, or is no list of JSON.
    """
    name = series_name(file)
    try:
        found = json.loads(read_bytes(file))
    except TableError as error:
        raise UsageError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--source-file: expected JSON in {name}: {error}") from error
    if not isinstance(found, list):
        raise UsageError(f"--source-file: expected a list of token ids or of rows in {name}")
    return found
