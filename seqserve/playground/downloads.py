"""Writes results as tables to download: CSV in UTF-8, with a header line."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from seqserve.tabular import Record

MEDIA_TYPE = "text/csv; charset=utf-8"


def csv_of(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return rows as CSV; floats have as many digits as it takes to read them back exactly."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(titles)
    writer.writerows(rows)
    return text.getvalue().encode()


def csv_of_records(records: Sequence[Record]) -> bytes:
    """Return records as CSV, with a column for each title that any of them has, in the order of first use."""
    titles = list(dict.fromkeys(title for record in records for title in record))
    return csv_of(titles, ([record.get(title, "") for title in titles] for record in records))
