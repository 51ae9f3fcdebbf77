"""A long text is read in pieces, and costs about its size in memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.data.sources import own_data
from training.data.streaming import Alphabet, Section, blocks, store, survey
from training.recipes.text_corpus import TOKENS_FILE, read_corpus, split

ROOT = Path(__file__).parents[3]
MEBIBYTES = 24
# What `python -m training charlm` does before its first step and in its first ones.
PROGRAM = """
import resource, sys
from pathlib import Path
from training.recipes.text_corpus import read_corpus
from training.recipes.text_objective import NextTokenObjective
from training.data.sources import own_data
from training.loop.fit import build_network
from training.networks.network import NetworkConfig

def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
corpus = read_corpus(own_data(Path(sys.argv[1])), Path("run"))
size = len(corpus.vocabulary)
config = NetworkConfig("gru", 1, 8, size, vocabulary=size, embedding=4)
objective = NextTokenObjective(build_network(config, 0, "cpu"), corpus, "cpu")
losses = objective.losses(0)
for _ in range(3): next(losses)
print(peak() - before)
"""


@given(st.lists(st.text(max_size=9), max_size=9), st.integers(1, 20))
def test_blocks_lose_nothing(lines: list[str], size: int) -> None:
    found = list(blocks(lines, size))
    assert "".join(found) == "".join(lines)
    assert all(len(block) >= size for block in found[:-1])


@given(st.lists(st.text("abc\u00e9\U0001f600\n", max_size=9), max_size=9), st.integers(0, 80))
def test_ids_stand_where_their_sections_say(pieces: list[str], cut: int) -> None:
    text = "".join(pieces)
    cut = min(cut, len(text))
    alphabet = survey(lambda: pieces)
    assert alphabet == Alphabet("".join(sorted(set(text))), (len(text),))
    swapped = [Section(0, cut, len(text) - cut), Section(cut, len(text), 0)]
    ids = store(alphabet, [(lambda: pieces, swapped)], None)
    assert "".join(alphabet.vocabulary[token] for token in ids.tolist()) == text[cut:] + text[:cut]


@pytest.mark.parametrize(
    ("characters", "kind"), [(256, torch.uint8), (257, torch.int16), (40_000, torch.int32)]
)
def test_ids_take_as_few_bytes_as_the_vocabulary_allows(
    tmp_path: Path, characters: int, kind: torch.dtype
) -> None:
    text = "".join(chr(0x4E00 + index) for index in range(characters))
    ids = store(survey(lambda: [text]), [(lambda: [text], [Section(0, characters, 0)])], tmp_path / "ids")
    assert ids.dtype == kind
    assert torch.equal(ids.long(), torch.arange(characters))


def test_text_in_files_is_cut_as_one_in_memory(tmp_path: Path) -> None:
    text, more = "To be, or not to be.\n" * 100, "\u00c7a va ?\n" * 7
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (tmp_path / "b").write_text(more, encoding="utf-8")
    found, expected = (
        read_corpus(own_data(tmp_path / "a", tmp_path / "b"), tmp_path / "run"),
        split(text, more),
    )
    assert found.vocabulary == expected.vocabulary
    assert all(torch.equal(one, other) for one, other in zip(_parts(found), _parts(expected), strict=True))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [TOKENS_FILE]


def _parts(corpus: object) -> list[Tensor]:
    return [getattr(corpus, name) for name in ("train", "develop", "held_out")]


@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: ru_maxrss is in KiB there alone")
def test_long_text_costs_a_few_times_its_size(tmp_path: Path) -> None:
    lines = (
        np.random.default_rng(0)
        .integers(ord("a"), ord("z") + 1, (MEBIBYTES << 20) // 64 * 64, np.uint8)
        .reshape(-1, 64)
    )
    lines[:, -1] = ord("\n")
    (tmp_path / "long.txt").write_bytes(lines.tobytes())
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "long.txt"],
        cwd=tmp_path,
        env=settings,
        check=True,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert int(done.stdout) < 4 * MEBIBYTES << 10
