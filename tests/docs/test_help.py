"""The help text of every command and option: what is there, and what must not be."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer import Context
from typer.main import get_command
from typer.testing import CliRunner

from benchmarks import __main__ as benchmarks
from benchmarks import bulk, capacity, ledger
from seqserve.cli.app import app as seqserve
from service.settings import Settings, read_settings
from tests.chaos import __main__ as chaos
from training import __main__ as training
from training.evaluate import ablate

APPS = {
    "seqserve": seqserve,
    "python -m training": training.app,
    "python -m training.evaluate.ablate": ablate.app,
    "python -m benchmarks": benchmarks.app,
    "python -m benchmarks.bulk": bulk.app,
    "python -m benchmarks.capacity": capacity.app,
    "python -m benchmarks.ledger": ledger.app,
    "python -m tests.chaos": chaos.app,
}
# A flag that takes no value has no type; a default is given once, and is no word of Python's.
UNWANTED = {
    "a type behind a flag": re.compile(r"<bool>|\bbool\b"),
    "a default of None": re.compile(r"default: (None|\])|\bNone\b"),
    "a default of Python's own": re.compile(r"default factory|PosixPath|default: (True|False)\b"),
}


def commands(app: typer.Typer) -> Iterator[tuple[list[str], Any]]:
    """Every command of an app with the words that call it, the app itself among them."""
    group: Any = get_command(app)
    yield [], group
    for name, command in sorted(getattr(group, "commands", {}).items()):
        yield [name], command


CASES = [
    pytest.param(app, words, command, id=" ".join([program, *words]))
    for program, app in APPS.items()
    for words, command in commands(app)
]


def assert_plain(text: str) -> None:
    joined = re.sub(r"\s+", " ", text)
    found = {what: match[0] for what, pattern in UNWANTED.items() if (match := pattern.search(joined))}
    assert found == {}


@pytest.mark.parametrize(("app", "words", "command"), CASES)
def test_help_of_a_command_is_plain(app: typer.Typer, words: list[str], command: Any) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert_plain(result.output)


@pytest.mark.parametrize(("app", "words", "command"), CASES)
def test_command_and_each_of_its_options_has_a_help_text(
    app: typer.Typer, words: list[str], command: Any
) -> None:
    assert command.help
    assert [parameter.name for parameter in command.params if not parameter.help] == []


@pytest.mark.parametrize(("app", "words", "command"), CASES)
def test_each_option_gives_its_default_once(app: typer.Typer, words: list[str], command: Any) -> None:
    records = [each.get_help_record(Context(command)) or ("", "") for each in command.params]
    assert [record for record in records if record[1].lower().count("default:") > 1] == []


@pytest.mark.parametrize(("app", "words", "command"), CASES)
def test_every_word_of_an_options_help_is_shown(app: typer.Typer, words: list[str], command: Any) -> None:
    """typer's tables drop words in square brackets, such as a default that is told by the text."""
    shown = re.sub(r"\s+", "", CliRunner().invoke(app, [*words, "--help"]).output)
    hidden = [each.name for each in command.params if re.sub(r"\s+", "", each.help or "") not in shown]
    assert hidden == []


def test_help_of_the_service_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        read_settings(["--help"])
    assert leaving.value.code == 0
    text = capsys.readouterr().out
    assert_plain(text)
    _, _, options = text.partition("options:")
    joined = re.sub(r"\s+", " ", re.sub(r"-\n\s+", "-", options))  # a word with a hyphen may be broken
    for name, field in Settings.model_fields.items():
        described = re.search(rf"--{name.replace('_', '-')} \S+ (.*?)(?= --|$)", joined)
        assert described is not None, name
        assert (field.description or "") in described[1]
        assert described[1].count("(default:") <= 1
