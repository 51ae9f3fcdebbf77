"""Several processes train as one would: the same batches, the same losses; where one is killed, torchrun
starts them again.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.training import together
from tests.training.conftest import GOOG_TABLE, Command, random_walk
from training.data.label_tokenizers import word_tokenizer
from training.data.series import describe, split
from training.data.sources import own_data
from training.errors import TrainingError
from training.loop import parallel
from training.loop.checkpoint import CHECKPOINT_FILE, Epoch, read_history
from training.loop.fit import Objective, build_network, fit
from training.loop.parallel import Share
from training.networks.network import NetworkConfig
from training.recipes import sentiment, sizes, stock, text_corpus
from training.recipes.text_objective import NextTokenObjective

ROOT = Path(__file__).parents[3]


@given(rows=st.integers(1, 40), size=st.integers(1, 9))
def test_parts_hold_every_row_once_and_weigh_as_much_as_their_rows(rows: int, size: int) -> None:
    parts = [Share(rank, size).part(rows) for rank in range(size)]
    counted = [part for part in parts if part.weight]
    assert sorted(row for part in counted for row in range(rows)[part.rows]) == list(range(rows))
    assert all(len(range(rows)[part.rows]) == pytest.approx(rows * part.weight) for part in counted)
    assert all(len(range(rows)[part.rows]) == 1 for part in parts if not part.weight)


def _characters(text_file: Path, _: Path) -> Objective:
    corpus = text_corpus.split(text_corpus.read_text(text_file))
    size = len(corpus.vocabulary)
    return NextTokenObjective(
        build_network(NetworkConfig("lstm", 1, 8, size, vocabulary=size, embedding=4), 0, "cpu"),
        corpus,
        "cpu",
    )


def _texts(_: Path, reviews_file: Path) -> Objective:
    parts = sentiment.split(
        sentiment.read_labelled(sentiment.Table(own_data(reviews_file), "review", "verdict")), 0
    )
    tokenizer = word_tokenizer(parts.train.texts)
    config = NetworkConfig("lstm", 1, 8, 3, vocabulary=tokenizer.get_vocab_size(), embedding=4)
    return sentiment.SentimentObjective(build_network(config, 0, "cpu"), parts, tokenizer, "cpu")


def _windows(_: Path, __: Path) -> Objective:
    history = split(random_walk(150))
    forecast = describe(history, GOOG_TABLE)
    config = NetworkConfig(
        "gru", 1, 8, forecast.horizon * len(forecast.quantiles), features=len(forecast.columns)
    )
    return stock.ForecastObjective(build_network(config, 0, "cpu"), history, forecast, "cpu")


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("build", [_characters, _texts, _windows])
def test_shares_of_each_batch_add_up_to_the_whole(
    monkeypatch: pytest.MonkeyPatch, text_file: Path, reviews_file: Path, build: object, size: int
) -> None:
    monkeypatch.setattr(sentiment, "WORD_DROPOUT", 0.0)
    assert callable(build)
    objective: Objective = build(text_file, reviews_file)
    objective.network.eval()

    def losses(share: Share) -> Tensor:
        monkeypatch.setattr(parallel, "share", lambda: share)
        torch.manual_seed(1)
        with torch.no_grad():
            return torch.stack(list(objective.losses(0)))

    whole = losses(Share(0, 1))
    assert len(whole) == objective.steps_per_epoch
    torch.testing.assert_close(
        sum(losses(Share(rank, size)) for rank in range(size)), whole, rtol=1e-5, atol=1e-6
    )


def test_only_the_leader_keeps_its_random_numbers() -> None:
    drawn = []
    for rank in range(3):
        torch.manual_seed(7)
        Share(rank, 3).part_ways()
        drawn.append(float(torch.rand(())))
    torch.manual_seed(7)
    assert drawn[0] == float(torch.rand(()))
    assert len(set(drawn)) == 3


@pytest.mark.timeout(400)
def test_command_of_two_processes_has_the_losses_of_one(
    command: Command, monkeypatch: pytest.MonkeyPatch, text_file: Path, tmp_path: Path
) -> None:
    arguments = [
        "charlm",
        "--text",
        str(text_file),
        "--hidden",
        "8",
        "--layers",
        "1",
        "--epochs",
        "2",
        "--no-int8",
    ]
    done = _torchrun(
        "--nproc-per-node",
        "2",
        "-m",
        "tests.training.together",
        "command",
        *arguments,
        "--name",
        "two",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("exported to exported/two/1") == 1
    assert done.stdout.count("epoch   2/2") == 1
    monkeypatch.setattr(sizes, "SMALL_DROPOUT", (0.0, 0.0))
    assert command(*arguments, "--name", "one") == 0
    two, one = (read_history(Path("runs") / name / CHECKPOINT_FILE) for name in ("two", "one"))
    _assert_same_curve(two, one)
    assert [epoch.time_steps for epoch in two] == [epoch.time_steps for epoch in one]


@pytest.mark.timeout(400)
def test_run_whose_process_is_killed_is_started_again_and_goes_on(tmp_path: Path) -> None:
    alone = together.train(tmp_path / "alone")
    done = _torchrun(
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        "-m",
        "tests.training.together",
        str(tmp_path / "two"),
        "die",
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "error: another process of this run has ended" in done.stderr
    assert "1 of 3 epochs found" in done.stdout
    assert done.stdout.count("only the leader is here") == 1
    _assert_same_curve(read_history(tmp_path / "two" / CHECKPOINT_FILE), alone)


def test_run_started_again_without_resume_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    network = build_network(together.CONFIG, 0, "cpu")
    with pytest.raises(TrainingError, match="expected --resume"):
        fit(together.Sums(network), together.SCHEDULE, tmp_path, False, {})


def test_processes_that_mean_different_runs_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def everyone(_: Share, mine: dict[str, dict[str, object]]) -> list[dict[str, dict[str, object]]]:
        return [mine, mine | {"schedule": {**mine["schedule"], "seed": 5}}]

    monkeypatch.setattr(Share, "everyone", everyone)
    with pytest.raises(TrainingError, match="process 1 was started with schedule seed=5, process 0 with 0"):
        fit(together.Sums(build_network(together.CONFIG, 0, "cpu")), together.SCHEDULE, tmp_path, False, {})


def test_numbered_gpu_is_refused_where_each_process_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "share", lambda: Share(1, 2))
    with pytest.raises(TrainingError, match="expected cuda where several processes train"):
        build_network(together.CONFIG, 0, "cuda:1")


def _assert_same_curve(found: list[Epoch], expected: list[Epoch]) -> None:
    """Sums in another order differ in their last digits; a batch missed or counted twice would show in the
    third.
    """
    for name in ("train", "develop"):
        assert [getattr(epoch, name) for epoch in found] == pytest.approx(
            [getattr(epoch, name) for epoch in expected], rel=1e-4
        )


def _torchrun(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
