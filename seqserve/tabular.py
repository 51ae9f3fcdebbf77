"""Results as tables: for notebooks, as HTML, and as frames of pandas."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from html import escape
from itertools import islice
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

MAX_ROWS: Final = 60
MAX_CELL: Final = 500
_MAX_ITEMS: Final = 5

Record: TypeAlias = dict[str, object]
"""One row of a table: values by the titles of their columns."""


class Tabular(ABC):
    """Base class of results that can be shown as a table."""

    __slots__ = ()

    _item: ClassVar[str] = ""
    """Title of the column that numbers results with several rows each in a list; empty if each has one."""

    @abstractmethod
    def _records(self) -> list[Record]:
        """Return the rows of this result alone."""

    def _summary(self) -> list[Record]:
        """Return the rows of this result in a list of results."""
        return self._records()

    def to_frame(self) -> Any:
        """Return the result as a pandas DataFrame.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas  # noqa: PLC0415 - pandas is not needed for anything else
        except ImportError as error:
            message = "to_frame needs the package pandas, which cannot be imported: pip install pandas"
            raise ImportError(message, name="pandas") from error
        records = self._records()
        return pandas.DataFrame(records, columns=_titles(records))

    def _repr_html_(self) -> str:
        """Return the result as an HTML table of at most MAX_ROWS rows, for notebooks."""
        records = self._records()
        titles = _titles(records)
        head = "".join(f"<th>{_html(title)}</th>" for title in titles)
        body = "".join(
            "<tr>" + "".join(f"<td>{_html(record.get(title, ''))}</td>" for title in titles) + "</tr>"
            for record in records[:MAX_ROWS]
        )
        more = f"<p>and {len(records) - MAX_ROWS} more rows</p>" if len(records) > MAX_ROWS else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


Result = TypeVar("Result", bound=Tabular)


class Answers(list[Result], Tabular):
    """A list of results that can be shown as one table."""

    __slots__ = ()

    def _records(self) -> list[Record]:
        return list(self._iter_records())

    def _iter_records(self) -> Iterator[Record]:
        for number, result in enumerate(self):
            for record in result._summary():
                yield {result._item: number} | record if result._item else record

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, islice(self, _MAX_ITEMS)))
        more = f", and {len(self) - _MAX_ITEMS} more" if len(self) > _MAX_ITEMS else ""
        return f"[{shown}{more}]"


def short(text: str, most: int = 60) -> str:
    """Return the literal of a text, of its beginning if it is long."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}... ({len(text)} characters)"


def _titles(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(title for record in records for title in record))


def _html(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return escape(text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]}…")
