"""The table of ablations, and what it is made from."""

from dataclasses import replace
from pathlib import Path

import pytest

from training.errors import TrainingError
from training.evaluate import ablate
from training.evaluate.ablate import Found, read_found, read_mr, table


def _folder(path: Path, negative: list[str], positive: list[str]) -> Path:
    (path / "rt-polarity.neg").write_text("\n".join(negative) + "\n")
    (path / "rt-polarity.pos").write_text("\n".join(positive) + "\n")
    return path


def test_mr_is_read_from_its_two_files_and_a_repeated_text_counts_once(tmp_path: Path) -> None:
    texts = read_mr(_folder(tmp_path, ["dull . ", "flat .", "dull ."], ["fine .", "dull ."]))
    assert (texts.texts, texts.classes.tolist()) == (["dull .", "flat .", "fine ."], [0, 0, 1])


def test_missing_file_of_mr_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--mr: expected rt-polarity\.neg and rt-polarity\.pos in"):
        read_mr(tmp_path)


def test_table_has_the_mean_and_deviation_of_the_splits_of_each_row() -> None:
    found = [Found("words", seed, 79.0, held_out, 0.45, 30.0) for seed, held_out in ((1, 80.0), (0, 78.0))]
    assert table(found).splitlines()[2:] == [
        "| and words of the lexicon | 0, 1 | 78.0, 80.0 | 79.0 | 1.4 | 79.0 | 0.450 | 30 |"
    ]


def test_a_row_is_trained_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    mr = _folder(
        tmp_path,
        [f"dull film number {index}" for index in range(30)],
        [f"fine film number {index}" for index in range(30)],
    )
    monkeypatch.setitem(ablate.ROWS, "mr", ablate.Row("MR alone", kinds=(), hidden=4, members=2, is_mr=True))
    for _ in range(2):
        ablate.main(rows="mr", seeds="0", epochs=2, mr=mr)
    (found,) = read_found(ablate.FOLDER / ablate.FOUND_FILE)
    assert (found.row, found.seed) == ("mr", 0)
    with pytest.raises(TrainingError, match="expected --mr"):
        ablate.main(rows="mr", seeds="1")


def test_a_row_that_shares_networks_with_another_trains_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    mr = _folder(
        tmp_path,
        [f"dull film number {index}" for index in range(30)],
        [f"fine film number {index}" for index in range(30)],
    )
    for name in ("mr", "mr-counts"):
        monkeypatch.setitem(ablate.ROWS, name, replace(ablate.ROWS[name], hidden=4))
    ablate.main(rows="mr,mr-counts", seeds="0", epochs=1, mr=mr)
    alone, counting = read_found(ablate.FOLDER / ablate.FOUND_FILE)
    assert counting.cpu_seconds == alone.cpu_seconds
    assert counting.loss != alone.loss
