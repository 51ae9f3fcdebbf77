"""A version of contract 2: whole and by the contract, or not there at all."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.contract import spec
from tests.training.export.sequences.random_networks import examples_of, network_of
from training.errors import TrainingError
from training.export.card import CardFacts
from training.export.export import provenance
from training.export.sequences import export as exporting
from training.export.sequences.compare import Graphs, reference
from training.export.sequences.export import SequencePackage, export_sequences
from training.export.sequences.graphs import chunk_graph
from training.networks.sequences import LayerConfig, SequenceConfig

CHUNK = SequenceConfig(
    "chunk", (LayerConfig("lstm", 6), LayerConfig("gru", 4)), 3, features=2, starts="learned", has_norm=True
)
WHOLE = SequenceConfig("whole", (LayerConfig("gru", 5, "both"),), 3, vocabulary=7, embedding=4)
LABELS = spec.SequencesSpec(output=spec.OutputSpec(kind="logits", labels=["a", "b", "c"], steps="last"))


def package(config: SequenceConfig, section: spec.SequencesSpec = LABELS) -> SequencePackage:
    return SequencePackage(
        name="made",
        network=network_of(config),
        section=section,
        examples=examples_of(config, (1, 5, 12)),
        metrics={"held_out_accuracy": 0.5},
        provenance=provenance("nothing", "none", "0" * 64, seed=7),
        card=CardFacts("Summary.", "Split.", "| table |", "Limits."),
    )


def test_chunk_cell_is_accepted_by_the_contract(tmp_path: Path) -> None:
    made = package(CHUNK)
    folder = export_sequences(made, tmp_path)
    model, _ = spec.read_spec(folder)
    assert folder == tmp_path / "made" / "1"
    assert {path.name for path in folder.iterdir()} == {"model.json", "model.onnx", "README.md"}
    assert (model.network.kind, model.network.words) == ("chunk", "lstm 6, gru 4")
    assert [(one.input, one.output, one.size) for one in model.network.states] == [
        ("lstm0.h", "lstm0.h.next", 6),
        ("lstm0.c", "lstm0.c.next", 6),
        ("gru1.h", "gru1.h.next", 4),
    ]
    assert model.network.states[2].start == pytest.approx(made.network.starts[2].tolist())
    assert [golden.length for golden in model.golden] == [1, 5, 12]
    right = reference(made.network, made.examples[2])[model.golden[2].steps]
    assert model.golden[2].outputs == right.astype(float).tolist()


def test_whole_network_is_accepted_by_the_contract(tmp_path: Path) -> None:
    for number, (config, padding) in enumerate(
        ((WHOLE, "lengths"), (WHOLE, "none"), (replace(WHOLE, pooling="mean"), "lengths")), 1
    ):
        made = replace(package(config), padding=padding)  # type: ignore[arg-type]
        model, _ = spec.read_spec(export_sequences(made, tmp_path))
        assert model.version == number
        assert (model.network.kind, model.network.padding) == ("whole", padding)
        assert model.network.is_pooled == (config.pooling is not None)
        assert model.network.layers[0].direction == "both"


def test_init_graph_is_a_file_of_the_version(tmp_path: Path) -> None:
    config = replace(CHUNK, starts="zeros", initial=(("image", 4), ("place", 2)))
    model, _ = spec.read_spec(export_sequences(package(config), tmp_path))
    assert model.network.init is not None
    assert [(one.name, one.size) for one in model.network.init.inputs] == [("image", 4), ("place", 2)]
    assert model.network.init.file in model.files
    assert {name: len(row) for name, row in model.golden[0].initial.items()} == {"image": 4, "place": 2}


def test_card_says_how_to_ask_the_model(tmp_path: Path) -> None:
    plain = (export_sequences(package(CHUNK), tmp_path) / "README.md").read_text()
    assert "# made, version 1" in plain
    assert "seqserve infer made --file rows.csv" in plain
    config = replace(CHUNK, starts="zeros", initial=(("image", 4),))
    begun = (export_sequences(package(config), tmp_path) / "README.md").read_text()
    assert "initial: {...}} a line, with image\nseqserve infer made --file sequences.jsonl" in begun
    read = replace(package(WHOLE), examples=[replace(examples_of(WHOLE, (3,))[0], text="it's so")])
    said = (export_sequences(read, tmp_path) / "README.md").read_text()
    assert """seqserve infer made 'it'"'"'s so'""" in said


def test_window_and_activations_are_described(tmp_path: Path) -> None:
    config = SequenceConfig("chunk", (LayerConfig("rnn", 4, nonlinearity="relu"),), 3, features=2)
    window = spec.Window(to=5, side="left", value=0.0, longer="keep_last")
    made = replace(package(config), examples=examples_of(config, (5, 5)), window=window)
    model, _ = spec.read_spec(export_sequences(made, tmp_path))
    assert model.network.window == window
    assert model.network.layers[0].activations == ["Relu"]
    assert model.variants["fp32"].batch_invariant is False


def test_graph_that_differs_from_pytorch_is_not_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Graphs(chunk_graph(network_of(CHUNK, seed=1)).SerializeToString())
    monkeypatch.setattr(exporting, "graphs_of", lambda _: other)
    with pytest.raises(TrainingError, match="expected outputs within 1e-05"):
        export_sequences(package(CHUNK), tmp_path)
    assert not list(tmp_path.iterdir())


def test_package_that_breaks_the_contract_leaves_nothing_behind(tmp_path: Path) -> None:
    section = spec.SequencesSpec(output=spec.OutputSpec(kind="logits", labels=["a", "b"], steps="last"))
    with pytest.raises(spec.SpecError, match="outputs, one a label, must be 2, found 3"):
        export_sequences(package(CHUNK, section), tmp_path)
    assert not list(tmp_path.iterdir())
