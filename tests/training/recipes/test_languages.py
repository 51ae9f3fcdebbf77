"""Labelled texts of languages with and without spaces, from the file to the answer of the real server."""

import csv
from pathlib import Path

import pytest

from seqserve import AsyncClient
from service.contract import spec
from tests.integration.process import ServerProcess
from tests.training.conftest import Command
from training.data.tokenizing import KINDS

SMALL = ("--hidden", 8, "--epochs", 8, "--no-int8", "--repository", "models")
Out = pytest.CaptureFixture[str]


@pytest.fixture
def chinese_file(tmp_path: Path) -> Path:
    """144 texts without spaces, all different; one character of each tells its label."""
    rows = [
        (f"这部{genre}{film}我{sure}觉得很{word}{when}", label)
        for genre in ("动作", "爱情", "科幻", "历史")
        for film in ("电影", "片子", "作品")
        for sure in ("真的", "还是", "确实")
        for when in ("昨天", "今晚")
        for word, label in (("棒", "good"), ("糟", "bad"))
    ]
    with (tmp_path / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return tmp_path / "reviews.csv"


def test_texts_without_spaces_are_refused_as_words(command: Command, chinese_file: Path, capsys: Out) -> None:
    assert command("classify", chinese_file, "--tokenizer", "word", *SMALL) == 2
    shown = capsys.readouterr()
    assert "% of the words of the development part are unknown" in shown.out
    assert "--tokenizer word: expected words of the development part that training has seen" in shown.err
    assert "use --tokenizer bpe" in shown.err
    assert not (chinese_file.parent / "models").exists()


async def test_classifier_of_each_tokenizer_is_admitted_and_asked(
    command: Command, chinese_file: Path, capsys: Out
) -> None:
    kinds = [kind for kind in KINDS if kind != "word"]
    for kind in (*kinds, "auto"):
        assert command("classify", chinese_file, "--tokenizer", kind, "--name", kind, *SMALL) == 0
        shown = capsys.readouterr().out
        assert f"tokenizer: {'bpe (chosen by auto)' if kind == 'auto' else kind}: " in shown
        assert "0.0 % of the words of the development part are unknown" in shown
    models = chinese_file.parent / "models"
    model, _ = spec.read_spec(models / "characters" / "1")
    assert "others are one unknown token, 0.0 %" in (models / "characters" / "1" / "README.md").read_text()
    assert model.classification is not None
    async with ServerProcess(models) as server, AsyncClient(server.address) as client:
        for kind in ("bpe", "characters"):
            found = await client.classify(
                ["这部爱情电影我真的觉得很棒昨天", "这部历史作品我还是觉得很糟今晚"], model=kind
            )
            assert [one.label for one in found] == ["good", "bad"]
        [found_of_bytes] = await client.classify(["Ein Text, den niemand sah"], model="bytes")
        assert found_of_bytes.label in ("good", "bad")
