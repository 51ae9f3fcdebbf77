"""What each shape claims: learned or not, which days are held out, how dates are written, what is
exported.
"""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from service.contract import spec
from tests.training.conftest import Command
from tests.training.shapes.trained import PLAN, alphabet, dates, digits, majority, wave
from training.export.export import export
from training.shapes import delay, small, written
from training.shapes.command import SHAPES

days = st.dates(date(written.FIRST_YEAR, 1, 1), date(written.LAST_YEAR, 12, 31))


def test_what_is_learned_by_heart_comes_out_whole() -> None:
    assert [one.accuracy for one in (alphabet(), digits(), wave())] == [1, 1, 1]


def test_majority_is_learned_for_strings_never_seen() -> None:
    assert majority().accuracy >= 0.95


def test_bit_strings_are_odd_and_different() -> None:
    strings = small.bit_strings(small.BIT_STRINGS, 0)
    assert len(set(strings)) == small.BIT_STRINGS
    assert {len(one) % 2 for one in strings} == {1}
    assert small.majority("1") == "ones"
    assert small.majority("00110") == "zeros"


def test_the_wave_needs_the_state() -> None:
    assert {small.WAVE[index + 1] for index in range(5) if small.WAVE[index] == "c"} == {"d", "b"}


def test_dates_of_days_never_seen_are_learned() -> None:
    solved = dates()
    assert solved.history[-1].develop < solved.history[0].develop / 1.5
    assert solved.accuracy >= 0.05


def test_untrained_network_knows_no_date() -> None:
    network = delay.build("lstm", PLAN, 0).eval()
    assert (
        delay.exact(network, PLAN.forms[0], written.split(0, PLAN.first_year, PLAN.last_year).held_out) == 0
    )


def test_only_answers_count_in_the_loss() -> None:
    forms, chosen = list(written.FORMS), [date(2026, 7, 4)] * len(written.FORMS)
    inputs, targets, counts = delay.pairs(forms, chosen)
    assert inputs.shape == targets.shape == counts.shape
    for row, form in enumerate(forms):
        asked = "".join(
            written.VOCABULARY[token]
            for token in inputs[row, : len(written.question(form, chosen[row]))].tolist()
        )
        counted = "".join(written.VOCABULARY[token] for token in targets[row][counts[row]].tolist())
        assert asked == written.question(form, chosen[row])
        assert counted == "2026-07-04\n"


def test_no_day_is_in_two_parts_and_none_is_lost() -> None:
    parts = written.split(3)
    together = [*parts.train, *parts.develop, *parts.held_out]
    assert len(together) == len(set(together)) == (date(2100, 1, 1) - date(1900, 1, 1)).days
    assert len(parts.held_out) == round(0.1 * len(together))


def test_forms_are_named_by_the_fourth_of_july() -> None:
    for name, form in written.FORMS.items():
        assert form(date(2026, 7, 4)) == name
    endings = {
        1: "1st",
        2: "2nd",
        3: "3rd",
        11: "11th",
        12: "12th",
        13: "13th",
        21: "21st",
        22: "22nd",
        23: "23rd",
        30: "30th",
    }
    for day, ordinal in endings.items():
        assert written.FORMS["4th of July 2026"](date(2026, 1, day)) == f"{ordinal} of January 2026"


@given(days, days)
def test_a_written_date_stands_for_one_day_and_is_in_the_vocabulary(one: date, other: date) -> None:
    questions = [{written.question(form, day) for form in written.FORMS} for day in (one, other)]
    assert set("".join(questions[0])) <= set(written.VOCABULARY)
    # In May the short month is the whole one.
    assert len(questions[0]) == len(written.FORMS) - (one.month == 5)
    assert one == other or not questions[0] & questions[1]


def test_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=1, batches=3)
    one, other = (delay.train("gru", 1, plan, tmp_path).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_list_names_the_five(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("shapes", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [
        [name, title] for name, (title, _) in SHAPES.items()
    ]
    assert len(lines) == 5


def test_unknown_shape_is_one_line_and_status_two(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("shapes", "sphere") == 2
    assert "'sphere' is not one of 'alphabet', 'digits'" in capsys.readouterr().err


def test_command_trains_shows_and_exports(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("shapes", "alphabet", "--cell", "gru", "--export", "models") == 0
    shown = capsys.readouterr().out
    assert "out   bcdefghijklmnopqrstuvwxyza" in shown
    assert "seqserve generate --model alphabet --temperature 0 --max-tokens 1 q" in shown
    model, _ = spec.read_spec(tmp_path / "models" / "alphabet" / "1")
    assert (model.network.cell, model.task, model.metrics) == ("gru", "text-generation", {"exact": 1.0})


def test_every_shape_is_exported_and_says_how_to_ask_it(tmp_path: Path) -> None:
    for solved in (alphabet(), digits(), majority(), wave(), dates()):
        model, _ = spec.read_spec(export(solved.package(), tmp_path))
        assert model.name == solved.name
        assert f"--model {solved.name} " in solved.question()
        assert all(line.strip() for line in solved.lines())
