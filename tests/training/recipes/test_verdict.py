"""The verdict of a run agrees with its table and its history, and says what to try next."""

import json
import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.conftest import Command
from training.loop.checkpoint import Epoch
from training.loop.course import Course
from training.recipes.report import Contender, Measure, Results
from training.recipes.verdict import verdict

VALUES = st.floats(0, 100)
Better = Literal["less", "more"]


def _results(
    own: float | None, *others: float | None, better: Better = "less", units: tuple[np.ndarray, ...] = ()
) -> Results:
    baselines = [Contender(f"b{index}", f"baseline_{index}") for index in range(len(others))]
    return Results(
        "title",
        (Contender("lstm", "held_out"), *baselines),
        (Measure("loss, nats", "loss", (own, *others), ".4f", better, units),),
    )


def _course(
    train: list[float], develop: list[float], epochs: int = 0, ending: str | None = "epochs"
) -> Course:
    history = [Epoch(*losses) for losses in zip(train, develop, strict=True)]
    return Course(history, ending, epochs or len(history), 2e-3, 32, 0.2)  # type: ignore[arg-type]


@given(VALUES, st.lists(VALUES, min_size=1, max_size=3), st.sampled_from(["less", "more"]))
def test_sign_of_each_comparison_agrees_with_the_table(
    own: float, others: list[float], better: Better
) -> None:
    found = verdict(_results(own, *others, better=better), None)
    wins = [own < other if better == "less" else own > other for other in others]
    assert [one.is_better for one in found.comparisons] == wins
    assert found.beats_baselines == all(wins)
    assert found.headline.startswith("Beats" if all(wins) else "Does not beat")
    for line, other, is_win in zip(found.lines()[1:], others, wins, strict=True):
        assert line.startswith(
            "better than" if is_win else "no better than" if own == other else "worse than"
        )
        assert f"{own:.4f} against {other:.4f}" in line
    assert all(f"b{index}" in found.shortfall() for index, is_win in enumerate(wins) if not is_win)


@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_difference_is_beyond_chance_only_if_its_interval_leaves_out_zero(seed: int, shift: float) -> None:
    generator = np.random.default_rng(seed)
    own, other = generator.normal(shift, 1, 200), generator.normal(0, 1, 200)
    found = verdict(_results(own.mean(), other.mean(), units=(own, other)), None).comparisons[0]
    error = float(np.std(own - other) / math.sqrt(200))
    if abs(found.gain) > 3 * error:
        assert found.is_sure
    if abs(found.gain) < 1.3 * error:
        assert found.is_sure is False


def test_gain_that_chance_explains_is_said_to_be_one() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, (2, 100))
    noise -= noise.mean(axis=1, keepdims=True)
    found = verdict(_results(0.99, 1.0, units=(noise[0] + 0.99, noise[1] + 1)), None)
    assert found.beats_baselines
    assert found.headline == "Beats its baselines, but not all of them by more than chance explains."
    assert found.lines()[1].endswith("1.0 % less; chance explains as much")


def test_difference_over_a_few_units_is_never_beyond_chance() -> None:
    units = np.full(9, 1.0), np.full(9, 2.0)
    assert verdict(_results(1.0, 2.0, units=units), None).comparisons[0].is_sure is False


def test_value_that_is_no_number_beats_nothing() -> None:
    found = verdict(_results(math.nan, 1.0), None)
    assert not found.beats_baselines
    assert found.lines()[1] == "not comparable with b0: loss, nats nan against 1.0000"


def test_network_without_any_baseline_beats_none() -> None:
    found = verdict(_results(1.0, None), None)
    assert (found.beats_baselines, found.headline) == (False, "Not measured beside any baseline.")


def test_main_measure_and_last_own_column_decide_and_int8_does_not() -> None:
    contenders = (
        Contender("last 8", "held_out_8"),
        Contender("last 64", "held_out_64"),
        Contender("int8", "held_out_int8_64"),
        Contender("constant", "baseline_constant"),
    )
    measures = (
        Measure("RMSE", "rmse", (1.0, 1.0, 1.0, 0.5)),
        Measure("pinball", "pinball", (3.0, 1.0, 9.0, 2.0)),
    )
    found = verdict(Results("title", contenders, measures, main="pinball"), None)
    assert [(one.own, one.other) for one in found.comparisons] == [(1.0, 2.0)]
    assert found.lines()[1] == "better than constant: pinball 1.000 against 2.000, 50.0 % less"


@pytest.mark.parametrize(
    ("course", "said", "advice"),
    [
        (
            _course([2.0, 1.5, 1.2], [2.0, 1.6, 1.4]),
            "still improving at the last epoch, 3: development loss fell from 1.6000 to 1.4000",
            "--epochs 6",
        ),
        (
            _course([2.0, 1.5, 1.0, 0.6], [2.0, 1.6, 1.7, 1.9]),
            "overfitting after epoch 2: development loss rose from 1.6000 to 1.9000 by epoch 4, "
            "while training loss fell from 1.5000 to 0.6000; the weights of epoch 2 are kept",
            "more data; or --dropout 0.4; or --hidden 16",
        ),
        (
            _course([2.0, 1.5, 1.5], [2.0, 1.6, 1.605], epochs=9, ending="patience"),
            "stopped early after epoch 3 of 9: least development loss in epoch 2",
            "--learning-rate 0.0007",
        ),
        (
            _course([2.0, 1.5], [2.0, 1.6], epochs=9, ending="time"),
            "the time limit ended training in epoch 2 of 9, which is the best so far",
            "a longer --time-limit",
        ),
        (_course([2.0], [2.0]), "one epoch does not show a course", "--epochs 4"),
        (
            _course([2.0, 1.5, 1.49], [2.0, 1.6, 1.599]),
            "settled: least development loss in epoch 3 of 3",
            "--epochs 6; or --hidden 64; or more data",
        ),
        (
            _course([2.0, 1.5, 1.0, 0.9], [2.0, 1.6, 1.7, 1.9], epochs=9, ending="time"),
            "overfitting after epoch 2: development loss rose from 1.6000 to 1.9000 by epoch 4, "
            "while training loss fell from 1.5000 to 0.9000; the weights of epoch 2 are kept",
            "more data; or --dropout 0.4; or --hidden 16",
        ),
    ],
    ids=["improving", "overfitting", "patience", "time", "one epoch", "settled", "overfitting in time"],
)
def test_course_of_training_is_said_with_what_to_try_next(course: Course, said: str, advice: str) -> None:
    *_, found, following = verdict(_results(2.0, 1.0), course).lines()
    assert (found, following) == (said, f"try next: {advice}")


def test_winner_that_has_settled_gets_no_advice() -> None:
    lines = verdict(_results(1.0, 2.0), _course([2.0, 1.5, 1.49], [2.0, 1.6, 1.599])).lines()
    assert lines[-1] == "settled: least development loss in epoch 3 of 3"


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8))
def test_every_course_gets_one_line(losses: list[tuple[float, float]]) -> None:
    train, develop = (list(column) for column in zip(*losses, strict=True))
    found = verdict(_results(1.0, 2.0), _course(train, develop))
    assert found.course
    assert ("overfitting" in found.course) <= (min(develop) < develop[-1])
    assert ("still improving" in found.course) <= (len(develop) > 1 and develop[-1] == min(develop))


def test_rare_labels_that_are_seldom_found_call_for_class_weights() -> None:
    contenders = (Contender("lstm", "held_out"), Contender("naive Bayes", "baseline_nb"))
    measures = (
        Measure("accuracy, %", "accuracy", (90.0, 88.0), ".1f", "more"),
        Measure("mean over labels, %", "macro_recall", (50.0, 52.0)),
    )
    course = _course([2.0, 1.5, 1.49], [2.0, 1.6, 1.599])
    found = verdict(Results("title", contenders, measures), course)
    assert found.advice[0] == "--class-weights balanced, since rare labels are seldom found"
    weighted = verdict(Results("title", contenders, measures), course._replace(class_weights="balanced"))
    assert not any("class-weights" in one for one in weighted.advice)


SMALL = ("--hidden", 4, "--layers", 1, "--no-int8", "--no-mix", "--epochs", 1, "--repository", "models")


def test_model_that_loses_is_exported_as_such(
    command: Command, capsys: pytest.CaptureFixture[str], text_file: Path
) -> None:
    assert command("generate", text_file, "--name", "it", *SMALL) == 0
    shown = capsys.readouterr().out
    assert "verdict: Does not beat its baselines" in shown
    assert "worse than 5-gram, Witten-Bell: loss, nats a character " in shown
    assert "try next: --epochs 4" in shown
    version = Path("models/it/1")
    assert json.loads((version / "model.json").read_text())["metrics"]["beats_baselines"] == 0
    card = (version / "README.md").read_text()
    assert "**It does not beat the simple baselines that it was measured beside.**" in card
    assert "## Verdict\n**Does not beat its baselines" in card
    assert "\n- worse than 5-gram, Witten-Bell: " in card


def test_model_that_has_to_be_better_and_is_not_is_not_exported(
    command: Command, capsys: pytest.CaptureFixture[str], text_file: Path
) -> None:
    assert command("generate", text_file, "--name", "it", *SMALL, "--require-better") == 1
    error = capsys.readouterr().err
    assert "--require-better: expected a model that beats its baselines, found it worse than 5-gram" in error
    assert "runs/it/checkpoint.pt is kept" in error
    assert not (Path("models") / "it").exists()
    assert Path("runs/it/checkpoint.pt").exists()


def test_model_that_beats_its_baselines_passes_the_requirement(command: Command, tmp_path: Path) -> None:
    """Labels follow from the order of two words, which naive Bayes over single words cannot tell apart."""
    generator = np.random.default_rng(0)
    rows = []
    for index in range(400):
        words = [f"w{one}" for one in generator.integers(0, 30, 6)]
        first, second = (("up", "down"), ("down", "up"))[index % 2]
        rows.append(f"{'ab'[index % 2]},{' '.join([first, *words, second, str(index)])}")
    (tmp_path / "own.csv").write_text("label,text\n" + "\n".join(rows) + "\n")
    options = ("--hidden", 16, "--epochs", 20, "--no-int8", "--repository", "models")
    assert command("classify", "own.csv", *options, "--require-better") == 0
    found = json.loads(Path("models/own/1/model.json").read_text())["metrics"]
    assert found["beats_baselines"] == 1
    assert found["held_out_accuracy"] > found["baseline_nb_accuracy"]
