"""`python -m training lecture`: what it prints, exports and draws."""

import re
from pathlib import Path

import pytest

from service.contract import spec
from tests import lecture as trained
from tests.docs.pages import is_as_shown
from tests.integration.process import ROOT
from tests.training.conftest import Command
from training.lecture import hello
from training.lecture.command import LESSONS
from training.lecture.lesson import Taught
from training.lecture.pictures import draw

MOST_BYTES = 60_000


def test_list_names_the_lessons_in_the_lectures_order(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("lecture", "--list") == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == [
        "hello",
        "hihello",
        "charseq",
        "longseq",
        "dynamic",
        "stock",
    ]


def test_unknown_lesson_is_one_line_and_status_two(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("lecture", "goodbye") == 2
    assert "'goodbye' is not one of 'hello', 'hihello'" in capsys.readouterr().err


def test_lesson_is_shown_exported_and_drawn(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("lecture", "hihello", "--cell", "gru", "--pictures", "drawn") == 0
    shown = capsys.readouterr().out
    assert "target      ihello" in shown
    assert "alone, after 'h': ihello" in shown
    assert "seqserve generate --model hihello --temperature 0 --max-tokens 6 h" in shown
    model, _ = spec.read_spec(tmp_path / "runs" / "lecture" / "hihello" / "1")
    assert (model.network.words, model.outputs) == ("gru, 1 x 5", 5)
    assert (tmp_path / "drawn" / "hihello.png").read_bytes().startswith(b"\x89PNG")


def test_same_seed_gives_the_same_weights(command: Command, tmp_path: Path) -> None:
    for _ in range(2):
        assert command("lecture", "hihello", "--export", "models", "--seed", 3) == 0
    one, other = ((tmp_path / "models" / "hihello" / version / "model.onnx").read_bytes() for version in "12")
    assert one == other


def test_lesson_without_a_model_says_why(
    command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command("lecture", "hello", "--pictures", "drawn") == 0
    assert (
        "not exported: 2 untrained numbers a step stand for none of the 4 letters" in capsys.readouterr().out
    )
    assert not list(tmp_path.iterdir())


def test_interrupted_lesson_ends_in_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> hello.Shapes:
        raise KeyboardInterrupt

    monkeypatch.setattr(hello, "Shapes", interrupt)
    assert command("lecture", "hello") == 130
    assert "interrupted" in capsys.readouterr().err


def test_pictures_are_small(tmp_path: Path) -> None:
    taught: dict[str, Taught] = {
        "hihello": trained.hihello("lstm"),
        "charseq": trained.charseq("lstm"),
        "longseq": trained.contest("lstm"),
        "dynamic": trained.words("lstm"),
        "stock": trained.market("lstm"),
    }
    assert set(taught) == set(LESSONS) - {"hello"}
    for name, one in taught.items():
        (path,) = draw(name, one, tmp_path)
        assert 1_000 < path.stat().st_size < MOST_BYTES, name


def test_every_line_of_a_lesson_is_text() -> None:
    taught: tuple[Taught, ...] = (trained.contest("gru"), trained.words("gru"), trained.market("gru"))
    for one in taught:
        lines = list(one.lines())
        assert len(lines) > 5
        assert all(line.strip() for line in lines)


def test_page_shows_what_lessons_print() -> None:
    page = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")
    blocks = dict(
        zip(
            re.findall(r"^## \d\. (\w+)", page, re.MULTILINE),
            re.split(r"^## ", page, flags=re.MULTILINE)[1:],
            strict=False,
        )
    )
    assert list(blocks) == list(LESSONS)
    for name, taught in (("charseq", trained.charseq("lstm")), ("dynamic", trained.words("lstm"))):
        (shown,) = re.findall(r"^```text\n(.*?)^```", blocks[name], re.MULTILINE | re.DOTALL)
        found = "\n".join(taught.lines())
        assert is_as_shown(f"...\n{shown}\n...", found), found
    assert all(f"](lecture/{name}.png)" in blocks[name] for name in LESSONS if name != "hello")
