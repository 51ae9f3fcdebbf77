"""The command and the function: options, report, refusals, exit status."""

import io
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from service.contract import spec
from tests.training.conftest import Command
from tests.training.convert.exporting import export
from tests.training.convert.test_encoders import Translator
from training.convert import api
from training.convert.admission import Admission, Check
from training.convert.api import convert
from training.convert.command import name_of
from training.convert.foreign import Refused
from training.convert.report import as_json, print_report
from training.errors import TrainingError

SAMPLES = Path(__file__).parent / "samples"
LAST, FEATURES = SAMPLES / "emb_lstm_last.ts.onnx", SAMPLES / "gru_series_class.dynamo.onnx"
LANGUAGE, PAIRS = SAMPLES / "stateful_lstm.ts.onnx", SAMPLES / "emb_lstm_last.npz"
CHARACTERS = "".join(map(chr, range(40, 100)))
STATES = ("--state", "h0:hn", "--state", "c0:cn")
ADMITTED = Admission(
    True, (Check("golden", "outputs are right", "passed", {"largest_difference": 0.0}),), 0.1
)


@pytest.fixture(autouse=True)
def _admission(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's checks take seconds in a process of their own; the integration test runs them."""

    def admitted(folder: Path) -> Admission:
        spec.read_version(folder)
        return ADMITTED

    monkeypatch.setattr(api, "admitted", admitted)


def test_report_says_what_was_found_and_proven(command: Command, tmp_path: Path, capsys: Any) -> None:
    arguments = (LAST, "--repository", tmp_path, "--name", "mine", "--labels", "a,b,c", "--examples", PAIRS)
    assert command("convert", *map(str, arguments)) == 0
    shown = capsys.readouterr().out
    for part in (
        "lstm, 1 x 24; chunk: cut anywhere in time",
        "takes token ids below 60; gives one of 3 labels for the sequence; task sequences",
        "the outputs are logits, of which softmax gives",
        "in chunks of 4",
        "6 examples of your own agree within 0.001",
        "us with 1 row",
        f"SEQSERVE_REPOSITORY={tmp_path} make serve",
        f"seqserve infer mine --file {tmp_path}/mine/1/examples.jsonl",
    ):
        assert part in shown
    model, _ = spec.read_spec(tmp_path / "mine" / "1")
    assert model.provenance.source is not None
    assert model.provenance.source.file == LAST.name
    assert len(model.golden) > 6


def test_json_is_one_object(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command("convert", str(LANGUAGE), *STATES, "--repository", str(tmp_path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["version"], found["kind"]) == ("stateful_lstm.ts", 1, "chunk")
    assert found["largest_difference"] <= 2e-5
    assert set(found["step_microseconds"]) == {"1", "32"}
    assert found["original_step_microseconds"] > 0
    assert found["admission"] == {"largest_difference": 0.0}
    assert found["proof"][0]["way"] == "each alone"


def test_characters_make_a_language_model(command: Command, tmp_path: Path, capsys: Any) -> None:
    arguments = ("--characters", CHARACTERS, "--end-tokens", "a", "--max-tokens", "20")
    assert (
        command("convert", str(LANGUAGE), *STATES, *arguments, "--repository", str(tmp_path), "--json") == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["task"] == "text-generation"
    assert found["call"].startswith("seqserve generate --model stateful_lstm.ts ")
    model, _ = spec.read_spec(Path(found["folder"]))
    assert model.generation is not None
    assert (model.generation.end_tokens, model.generation.max_tokens) == ([CHARACTERS.index("a")], 20)


def test_dry_run_writes_nothing(command: Command, tmp_path: Path, capsys: Any) -> None:
    repository = tmp_path / "none"
    assert command("convert", str(FEATURES), "--repository", str(repository), "--dry-run") == 0
    assert "Nothing was written, as --dry-run asks" in capsys.readouterr().out
    assert not repository.exists()


def test_window_and_features_reach_the_version(command: Command, tmp_path: Path, capsys: Any) -> None:
    scaling = tmp_path / "scaling.json"
    scaling.write_text(json.dumps({"mean_": [0, 1, 2, 3, 4], "scale_": [1, 2, 3, 4, 5]}))
    arguments = ("--window", "9", "--pad", "right", "--pad-value", "-1", "--longer", "keep_last")
    more = ("--features", str(scaling), "--repository", str(tmp_path), "--json")
    assert command("convert", str(FEATURES), *arguments, *more) == 0
    model, _ = spec.read_spec(Path(json.loads(capsys.readouterr().out)["folder"]))
    assert model.network.window == spec.Window(to=9, side="right", value=-1.0, longer="keep_last")
    assert model.sequences is not None
    assert [one.scale for one in model.sequences.columns or ()] == [1, 2, 3, 4, 5]
    assert {golden.length for golden in model.golden} == {9}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("none.onnx",), 1, "refused: none.onnx: expected an ONNX file, found nothing"),
        (("none",), 1, "refused: none: expected an .onnx file, a .keras file, or package.module:function"),
        (("weights.pt",), 1, "refused: weights.pt: cannot be read: No such file or directory"),
        (("model.h5",), 1, "save it with Keras 3 as a .keras file"),
        ((SAMPLES / "cell_loop.ts.onnx",), 1, "refused: expected a recurrent node"),
        ((LAST, "--labels", "a,b"), 2, "error: --labels: expected 3, one an output of the network, found 2"),
        ((LAST, "--name", "../up"), 2, "error: --name: expected up to 64 letters"),
        ((LAST, "--state", "h0"), 2, "error: --state: expected INPUT:OUTPUT, found 'h0'"),
        ((LAST, "--set", "sr=fast"), 2, "error: --set: expected NAME=NUMBER, found 'sr=fast'"),
        (
            (LAST, "--window", "9", "--pad-value", "nan"),
            2,
            "--window: value: expected a finite number",
        ),
        ((LAST, "--examples", "none.npz"), 2, "error: none.npz: cannot be read"),
        ((LAST, "--tokenizer", "none.json"), 2, "error: none.json: cannot be read"),
        ((LAST, "--task", "poetry"), 2, "'poetry' is not one of"),
        ((), 2, "Missing argument 'FILE'"),
    ],
)
def test_refusal_is_one_line_with_its_status(
    command: Command,
    tmp_path: Path,
    capsys: Any,
    arguments: tuple[Any, ...],
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("convert", *map(str, arguments), "--repository", str(tmp_path)) == status
    shown = capsys.readouterr()
    assert message in shown.err
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)
    assert list(tmp_path.iterdir()) == []


def test_refusal_is_an_object_with_json(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command("convert", "none.onnx", "--json") == 1
    assert json.loads(capsys.readouterr().out) == {
        "error": "none.onnx: expected an ONNX file, found nothing",
        "advice": "",
    }
    assert command("convert", str(LAST), "--labels", "a", "--dry-run", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"].startswith("--labels: expected 3")


def test_failed_check_of_the_service_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Check("golden", "outputs are right", "failed", text="check 'golden' failed: expected a, found b")
    monkeypatch.setattr(api, "admitted", lambda _: Admission(False, (failed,), 0.1))
    with pytest.raises(Refused, match="the service would not serve it: check 'golden' failed") as refused:
        convert(LAST, name="mine", repository=tmp_path)
    assert refused.value.advice
    assert list(tmp_path.iterdir()) == []


def test_disagreeing_examples_are_refused(tmp_path: Path) -> None:
    pairs = [{"tokens": [1, 2, 3], "output": [9, 9, 9]}]
    with pytest.raises(
        Refused, match=r"--examples: example 0: expected 9, 9, 9 within 0\.001 of the largest output, found"
    ):
        convert(LAST, name="mine", repository=tmp_path, pairs=pairs)
    assert list(tmp_path.iterdir()) == []


class Tagger(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 4)
        self.lstm = torch.nn.LSTM(4, 6, batch_first=True)
        self.head = torch.nn.Linear(6, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.lstm(self.embedding(tokens))[0])
        return found


def test_function_takes_a_module_and_python_values(tmp_path: Path) -> None:
    module = Tagger().eval()
    made = convert(
        module,
        name="tags",
        repository=str(tmp_path),
        labels=["noun", "verb"],
        tokenizer={"<OOV>": 1, "dog": 2, "runs": 3},
        pairs=[{"text": "The dog runs", "outputs": module(torch.tensor([[1, 2, 3]]))[0].tolist()}],
    )
    assert made.folder == tmp_path / "tags" / "1"
    assert made.model.sequences is not None
    assert made.model.sequences.output.steps == "every"
    assert made.model.golden[-1].text == "The dog runs"
    console = Console(record=True, width=120, file=io.StringIO())
    print_report(made, console)
    assert "1 example of your own agrees" in console.export_text()
    assert as_json(made)["examples"]["kept"] == 1
    with pytest.raises(TypeError, match="no option colour"):
        convert(module, name="tags", repository=tmp_path, colour="red")  # type: ignore[call-arg]
    with pytest.raises(TrainingError, match="--name"):
        convert(module, name="", repository=tmp_path)


def test_encoder_and_decoder_have_texts_of_their_own(tmp_path: Path) -> None:
    names = ["source", "target"]
    axes = {name: {0: "batch", 1: f"{name}_steps"} for name in names}
    axes["logits"] = {0: "batch", 1: "target_steps"}
    ids = [torch.ones(1, steps, dtype=torch.int64) for steps in (4, 3)]
    file = export(Translator(both=True), ids, tmp_path / "translator.onnx", names, ["logits"], axes)
    made = convert(
        file,
        name="translator",
        repository=tmp_path / "models",
        characters="\nabcdefgh",
        source_characters="0123456789-",
    )
    assert made.model.generation is not None
    assert made.model.source is not None
    for golden in made.model.golden:
        assert golden.source is not None
        assert golden.source.text is not None
        assert golden.source.tokens == ["0123456789-".index(one) for one in golden.source.text]
        assert golden.text is not None
    assert " --source " in as_json(made)["call"]


def test_model_is_named_after_its_file() -> None:
    assert name_of("models/my net (2).onnx") == "my-net-2"
    assert name_of("package.module:build") == "build"
    assert name_of("___.onnx") == "model"


def test_options_have_help_and_no_default_needs_thought(command: Command, capsys: Any) -> None:
    assert command("convert", "--help") == 0
    shown = capsys.readouterr().out
    for option in ("--labels", "--features", "--window", "--state", "--examples", "--dry-run", "--json"):
        assert option in shown


def test_interrupt_while_a_version_is_written_leaves_nothing(tmp_path: Path) -> None:
    file = export(Tagger(), [torch.tensor([[1, 2, 3]])], tmp_path / "tags.onnx")
    repository = tmp_path / "models"
    started = subprocess.Popen(
        [sys.executable, "-m", "training", "convert", str(file), "--repository", str(repository)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal, whose Ctrl-C reaches the check that runs as well.
        process_group=0,
    )
    deadline = time.monotonic() + 60
    # The version lies in its hidden folder as long as the service's checks run, which takes a second.
    while not list(repository.glob(".convert-*.part/tags/1/model.json")):
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < deadline, "no version was written"
        time.sleep(0.005)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert (started.returncode, out) == (130, "")
    assert "interrupted" in err
    assert not repository.exists()


def test_full_disk_leaves_nothing(tmp_path: Path, command: Command, capsys: Any) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        status = command("convert", str(LAST), "--repository", str(tmp_path / "models"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert status == 1
    assert "cannot be written: File too large" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()
