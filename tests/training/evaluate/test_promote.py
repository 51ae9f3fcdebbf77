"""A candidate becomes the next version, whole, if chance explains what it loses; else it is refused with
numbers.
"""

import json
from pathlib import Path

import pytest

from service.contract import spec
from tests.training.conftest import Command
from tests.training.letters import write_letters

Out = pytest.CaptureFixture[str]


@pytest.fixture
def served(tmp_path: Path, text_file: Path) -> Path:
    """A repository with one version."""
    write_letters(tmp_path / "served", text_file)
    return tmp_path / "served"


def _versions(repository: Path) -> list[str]:
    return sorted(path.name for path in (repository / "letters").iterdir())


def test_equal_candidate_becomes_the_next_version(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path, served: Path
) -> None:
    candidate = write_letters(tmp_path / "new", text_file)
    assert command("promote", candidate, "--to", served, "--text", text_file) == 0
    assert "no difference that counts" in capsys.readouterr().out
    assert _versions(served) == ["1", "2"]
    model, _ = spec.read_spec(served / "letters" / "2")
    assert model.version == 2
    assert model.provenance == spec.read_spec(candidate)[0].provenance
    card = (served / "letters" / "2" / "README.md").read_text()
    assert "# letters, version 2" in card
    assert "With letters@1, on the same held-out part" in card


def test_better_candidate_is_promoted_and_said_to_be_better(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path
) -> None:
    write_letters(tmp_path / "served", text_file, trust=0)
    candidate = write_letters(tmp_path / "new", text_file)
    assert command("promote", candidate, "--to", tmp_path / "served", "--text", text_file) == 0
    assert "units): better" in capsys.readouterr().out


def test_worse_candidate_is_refused_with_numbers(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path, served: Path
) -> None:
    candidate = write_letters(tmp_path / "new", text_file, trust=0)
    assert command("promote", candidate, "--to", served, "--text", text_file) == 1
    said = capsys.readouterr().out
    assert "refused: loss, nats a character: " in said
    assert "95% interval +" in said
    assert _versions(served) == ["1"]


def test_claims_of_model_json_are_not_believed(
    command: Command, tmp_path: Path, text_file: Path, served: Path
) -> None:
    candidate = write_letters(tmp_path / "new", text_file, trust=0)
    described = json.loads((candidate / "model.json").read_text())
    described["metrics"]["held_out_loss"] = 0.001
    (candidate / "model.json").write_text(json.dumps(described))
    assert command("promote", candidate, "--to", served, "--text", text_file) == 1


def test_worse_candidate_is_promoted_by_force_with_the_reason_on_its_card(
    command: Command, tmp_path: Path, text_file: Path, served: Path
) -> None:
    candidate = write_letters(tmp_path / "new", text_file, trust=0)
    assert (
        command(
            "promote", candidate, "--to", served, "--text", text_file, "--force", "the old one is withdrawn"
        )
        == 0
    )
    card = (served / "letters" / "2" / "README.md").read_text()
    assert "Promoted against these objections: loss, nats a character" in card
    assert "Reason given: the old one is withdrawn" in card


def test_candidate_with_another_held_out_part_needs_force(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path, served: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(
        text_file.read_text(encoding="utf-8") + "More of it, at the end.\n" * 9, encoding="utf-8"
    )
    candidate = write_letters(tmp_path / "new", other)
    assert command("promote", candidate, "--to", served, "--text", other) == 2
    assert "letters@1: expected the data that it was trained on, sha256" in capsys.readouterr().err
    assert command("promote", candidate, "--to", served, "--text", other, "--force", "more text") == 0
    assert _versions(served) == ["1", "2"]


def test_first_version_is_promoted_without_comparison(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path
) -> None:
    candidate = write_letters(tmp_path / "new", text_file)
    assert command("promote", candidate, "--to", tmp_path / "empty") == 0
    assert "the first of its name" in capsys.readouterr().out
    assert _versions(tmp_path / "empty") == ["1"]


def test_newest_version_is_not_promoted_over_itself(
    command: Command, capsys: Out, text_file: Path, served: Path
) -> None:
    assert command("promote", served / "letters" / "1", "--to", served, "--text", text_file) == 2
    assert "is the newest version in" in capsys.readouterr().err


def test_graph_that_breaks_its_golden_outputs_is_refused_even_by_force(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path, served: Path
) -> None:
    candidate = write_letters(tmp_path / "new", text_file)
    described = json.loads((candidate / "model.json").read_text())
    described["golden"][0]["outputs"][0][0] += 0.5
    (candidate / "model.json").write_text(json.dumps(described))
    assert command("promote", candidate, "--to", served, "--text", text_file, "--force", "why not") == 2
    assert "golden[0]: expected outputs within 0.0001, found 5" in capsys.readouterr().err


def test_damaged_candidate_is_refused(
    command: Command, capsys: Out, tmp_path: Path, text_file: Path, served: Path
) -> None:
    candidate = write_letters(tmp_path / "new", text_file)
    (candidate / "model.onnx").write_bytes(b"damaged")
    assert command("promote", candidate, "--to", served, "--text", text_file) == 2
    assert "sha256 of model.onnx: expected" in capsys.readouterr().err


@pytest.mark.parametrize("after", [0, 1, 2])
def test_interrupted_promotion_leaves_nothing_behind_and_is_never_seen_half(
    command: Command,
    tmp_path: Path,
    text_file: Path,
    served: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    candidate = write_letters(tmp_path / "new", text_file)
    before = sorted(served.rglob("*"))
    seen: list[list[str]] = []
    write = Path.write_bytes

    def interrupt(path: Path, data: bytes) -> int:
        seen.append([name for name in _versions(served) if not name.startswith(".")])
        if len(seen) > after:
            raise KeyboardInterrupt
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupt)
        assert command("promote", candidate, "--to", served, "--text", text_file) == 130
    assert seen == [["1"]] * (after + 1)
    assert sorted(served.rglob("*")) == before
