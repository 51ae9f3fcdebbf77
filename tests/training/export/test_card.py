"""The model card: what hubs read of it, the same bytes for the same run, and pictures that stay small."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from service.contract import spec
from tests.training.conftest import Command
from tests.training.letters import FACTS, write_letters
from training.errors import TrainingError
from training.export import pictures
from training.export.card import CardFacts, card_files, read_facts, together
from training.export.pictures import Fans, Labels
from training.loop.checkpoint import Epoch

Out = pytest.CaptureFixture[str]
HISTORY = tuple(
    Epoch(3.0 / number, 3.1 / number, 1800.0, f"sample {number} with ``` in it") for number in range(1, 12)
)
LABELS = Labels(["bad", "good"], [[40, 10], [5, 45]], [0.6, 0.9], [0.65, 0.85], [30, 70], 4.2)
FANS = Fans(
    "close, USD",
    80,
    3,
    [float(day) for day in range(20)],
    [0, 6],
    [[0.0, 1.0], [5.0, 6.0]],
    [[1.0, 2.0], [7.0, 8.0]],
    [[2.0, 4.0], [9.0, 9.0]],
)
MOST_BYTES = 60_000


def _model(tmp_path: Path, text_file: Path) -> spec.ModelSpec:
    return spec.read_spec(write_letters(tmp_path / "exported", text_file))[0]


def _front_matter(card: str) -> dict[str, object]:
    _, matter, _ = card.split("---\n", 2)
    found = yaml.safe_load(matter)
    assert isinstance(found, dict)
    return found


def test_front_matter_is_what_hubs_read(tmp_path: Path, text_file: Path) -> None:
    folder = write_letters(tmp_path, text_file)
    matter = _front_matter((folder / "README.md").read_text())
    assert matter["license"] == "other"
    assert matter["pipeline_tag"] == "text-generation"
    assert matter["tags"] == ["seqserve", "onnx", "lstm", "text-generation"]
    assert matter["metrics"] == ["loss"]
    assert matter["model-index"] == [
        {
            "name": "letters",
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {
                        "name": "own.txt, given by the user",
                        "type": "file",
                        "split": "held out",
                        "revision": spec.read_spec(folder)[0].provenance.data_sha256,
                    },
                    "metrics": [{"type": "loss", "name": "loss", "value": 1.5}],
                }
            ],
        }
    ]


def test_shipped_models_say_licence_language_and_no_numbers_of_single_steps() -> None:
    for folder in sorted(Path("exported").glob("*/*")):
        model = spec.read_spec(folder)[0]
        matter = _front_matter(card_files(model, FACTS)["README.md"].decode())
        assert matter["license"] == "mit"
        assert ("language" in matter) == (model.task != "forecasting")
        assert all(not name[-1].isdecimal() and "int8" not in name for name in matter["metrics"])  # type: ignore[attr-defined]


def test_card_has_all_sections(tmp_path: Path, text_file: Path) -> None:
    facts = replace(
        FACTS, history=HISTORY, ablations="| without | loss |", promotion="Better.", int8="int8 costs little."
    )
    card = card_files(_model(tmp_path, text_file), facts)["README.md"].decode()
    titles = [line for line in card.splitlines() if line.startswith("## ")]
    assert titles == [
        "## Intended use",
        "## How to call it",
        "## Data",
        "## Results on the held-out part",
        "## Compared with the version before",
        "## Training",
        "## Ablations",
        "## Limits",
        "## Ethical notes",
        "## How to reproduce it",
    ]
    assert "5.5 CPU-hours over 11 epochs" in card
    assert "python -m training charlm --text own.txt" in card
    assert 'grpcurl -plaintext -d \'{"model": "letters", "prompt": ' in card
    assert card.count("````text\nsample ") == 6
    assert all(f"After epoch {number} " in card for number in (1, 11))


def test_card_of_the_same_run_is_the_same_and_so_are_its_pictures(tmp_path: Path, text_file: Path) -> None:
    model = _model(tmp_path, text_file)
    for evidence in (LABELS, None):
        files = card_files(model, replace(FACTS, history=HISTORY, evidence=evidence))
        assert card_files(model, read_facts(files)) == files


def test_facts_that_are_none_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"card\.json: summary: expected a value, found no such field"):
        read_facts({"card.json": b"{}"})
    with pytest.raises(TrainingError, match="found neither"):
        read_facts({})
    with pytest.raises(TrainingError, match="expected a card made by training"):
        read_facts({"README.md": b"# Hello\n"})


def test_pictures_are_small_pngs_whatever_the_labels() -> None:
    many = [f"{index} $\\frac label ☃ 漢字 of some length" for index in range(40)]
    size = len(many)
    crowded = Labels(many, [[index] * size for index in range(size)], [0.5], [0.5], [9], 0.0)
    for picture in (
        pictures.curves(HISTORY),
        pictures.curves(HISTORY[:1]),
        pictures.labels(LABELS),
        pictures.labels(crowded),
        pictures.fans(FANS),
    ):
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < MOST_BYTES
        assert struct.unpack(">II", picture[16:24]) == (648, 324)


def test_run_leaves_pictures_and_card_which_the_contract_takes_no_notice_of(
    command: Command, capsys: Out, tmp_path: Path, prices_file: Path
) -> None:
    assert (
        command("stock", "--csv", prices_file, "--name", "prices", "--hidden", 2, "--epochs", 2, "--no-int8")
        == 0
    )
    folder = tmp_path / "exported" / "prices" / "1"
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.json", "model.onnx", "README.md", "card.json", "training.png", "forecast.png"}
    model, _ = spec.read_spec(folder)
    assert set(model.files) == {"model.onnx"}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(read_facts(before).history) == 2
    capsys.readouterr()

    assert command("card", "prices@1", "--csv", prices_file) == 0
    assert "nothing changed" in capsys.readouterr().out

    (folder / "training.png").write_bytes(b"")
    assert command("card", folder) == 0
    assert capsys.readouterr().out.rstrip().endswith("1: training.png")

    # As a version of before there was a card.json: the facts are gathered anew from card, checkpoint and
    # held-out part.
    (folder / "card.json").unlink()
    assert command("card", "prices@1", "--csv", prices_file, "--checkpoint", "runs/prices/checkpoint.pt") == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_classifier_gets_its_confusion_matrix(command: Command, tmp_path: Path, reviews_file: Path) -> None:
    columns = ("--text-column", "review", "--label-column", "verdict")
    assert (
        command(
            "sentiment",
            "--csv",
            reviews_file,
            *columns,
            "--name",
            "own",
            "--hidden",
            4,
            "--epochs",
            1,
            "--members",
            2,
            "--no-int8",
        )
        == 0
    )
    facts = read_facts({"card.json": (tmp_path / "exported" / "own" / "1" / "card.json").read_bytes()})
    assert len(facts.history) == 1
    assert isinstance(facts.evidence, Labels)
    assert facts.evidence.labels == ["bad", "good", "so-so"]
    assert sum(map(sum, facts.evidence.counts)) == sum(facts.evidence.texts) == 9
    assert (tmp_path / "exported" / "own" / "1" / "labels.png").stat().st_size < MOST_BYTES


def test_card_of_the_users_file_that_is_not_named_says_so(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path
) -> None:
    folder = write_letters(tmp_path / "exported", text_file)
    table = tmp_path / "table.md"
    table.write_text("| without dropout | 1.6 |\n")
    assert command("card", folder, "--ablations", table) == 0
    assert "## Ablations\n| without dropout | 1.6 |" in (folder / "README.md").read_text()
    assert json.loads((folder / "card.json").read_text())["ablations"] == "| without dropout | 1.6 |"
    assert command("card", folder, "--checkpoint", tmp_path / "none.pt") == 2
    assert "expected the checkpoint of letters@1's run, found none" in capsys.readouterr().err


def test_members_cost_the_time_of_all() -> None:
    first, second = (Epoch(2.0, 3.0, 10.0, "text", 5, 1.0),), (Epoch(4.0, 5.0, 20.0, "", 5, 1.0),)
    assert together([first, second]) == (Epoch(3.0, 4.0, 30.0, "text", 10, 2.0),)


def test_member_that_ended_early_counts_in_its_own_epochs() -> None:
    first, second = (Epoch(2.0, 3.0, 10.0, "", 5, 1.0),), (Epoch(4.0, 5.0, 20.0, "", 5, 1.0),)
    assert together([first, second * 2]) == (Epoch(3.0, 4.0, 30.0, "", 10, 2.0), *second)


def test_old_cards_are_understood() -> None:
    old = (
        "# a, version 1\n\nSummary.\n\n| | |\n| --- | --- |\n| task | b |\n\n"
        "## Data\nX. Licence: y.\n\nSplit.\n\n## Results on the held-out part\n"
        "| t |\n\nint8 note.\n\n## Limits\nLimits.\n\n## Made by\nz\n"
    )
    assert read_facts({"README.md": old.encode()}) == CardFacts(
        "Summary.", "Split.", "| t |", "Limits.", "int8 note."
    )
