"""The committed extracts are the recorded ones; what they are cut from is checked by `python -m
training.data.extract`, which needs a network.
"""

import hashlib

import pytest

from training.data.extract import EXTRACTS, Extract, speeches
from training.data.sources import FOLDER


@pytest.mark.parametrize("extract", EXTRACTS, ids=lambda extract: extract.path.name)
def test_committed_extract_has_its_recorded_sha256(extract: Extract) -> None:
    assert hashlib.sha256(extract.path.read_bytes()).hexdigest() == extract.sha256


@pytest.mark.parametrize("extract", EXTRACTS, ids=lambda extract: extract.path.name)
def test_each_extract_is_described_with_package_and_licence(extract: Extract) -> None:
    readme = (FOLDER / "README.md").read_text()
    licence = f"LICENSES/{extract.requirement.partition('==')[0]}.txt"
    assert all(text in readme for text in (extract.path.name, extract.requirement, licence))
    assert (FOLDER / licence).read_text().strip()


def test_speeches_leave_out_headings_and_stage_directions() -> None:
    play = (
        "# ACT I\n\n_Enter all._\n\n**Ann**\nCome in.\n_aside_\nQuick!\n\n"
        "Now.\n\n## Scene 2\n\nA street.\n\n**Bob**\n\nWho's there?"
    )
    assert speeches(play) == [("Ann", ["Come in.", "Quick!", "Now."]), ("Bob", ["Who's there?"])]
