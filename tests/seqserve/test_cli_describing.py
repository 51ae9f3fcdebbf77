"""What `seqserve models NAME` says of a model: what it takes, what it answers with, and a command to try."""

from dataclasses import replace
from typing import Any

import pytest

from seqserve import FeatureInfo, LayerInfo, ModelInfo, ModelStatus
from seqserve.cli.describing import command, sentence
from seqserve.cli.models import _layers, _verdict
from seqserve.v1 import models_pb2 as models
from tests.seqserve.command import run
from tests.seqserve.scripted_server import ScriptedServer

ACCELERATION = tuple(FeatureInfo(name, "m/s2") for name in ("ax", "ay", "az"))
TURN = tuple(FeatureInfo(name, "rad/s") for name in ("gx", "gy", "gz"))
FIELD = tuple(FeatureInfo(name, "uT") for name in ("mx", "my", "mz"))


BEGUN = {"init": {"file": "init.onnx", "inputs": [{"name": "image", "size": 5}, {"name": "age", "size": 1}]}}


def model(name: str = "some", task: str = "sequences", **fields: Any) -> ModelInfo:
    return ModelInfo(
        name, 1, ModelStatus.READY, "", task, "lstm", 1, 8, "fp32", "CPU", True, 0.0, {}, {}, **fields
    )


@pytest.mark.parametrize(
    ("about", "told"),
    [
        (
            model(input="steps", features=ACCELERATION, output="label", labels=("walk", "run", "sit")),
            "Takes rows of 3 numbers a time step (ax, ay, az in m/s2) and answers with one of 3 labels "
            "(walk, run, sit) for the whole sequence.",
        ),
        (
            model(input="steps", features=ACCELERATION + TURN, output="label", labels=tuple("abcdefgh")),
            "Takes rows of 6 numbers a time step (ax, ay, az in m/s2; gx, gy, gz in rad/s) and answers "
            "with one of 8 labels (a, b, ..., h) for the whole sequence.",
        ),
        (
            model(input="steps", features=ACCELERATION + TURN + FIELD, output="embedding", outputs=128),
            "Takes rows of 9 numbers a time step (ax, ay, ..., mz) and answers with an embedding of 128 "
            "numbers for the whole sequence.",
        ),
        (
            model(
                input="steps",
                features=(FeatureInfo("t", ""),),
                output="numbers",
                outputs=1,
                output_steps="every",
            ),
            "Takes one number a time step (t) and answers with one number for every time step.",
        ),
        (
            model(input="tokens", output="probabilities", labels=("a", "b"), output_steps="last"),
            "Takes token ids and answers with the probability of each of 2 labels (a, b) for the whole "
            "sequence.",
        ),
        (
            model(input="steps", features=(FeatureInfo("", ""),) * 4, output="numbers", outputs=2),
            "Takes rows of 4 numbers a time step and answers with 2 numbers for the whole sequence.",
        ),
        (
            replace(
                model(input="text", output="label", labels=("a", "b"), output_steps="last"),
                spec={"sequences": {"output": {"exclusive": False}}},
            ),
            "Takes text and answers with the probability of each of 2 labels (a, b) for the whole text.",
        ),
        (
            model(input="text", output="label", labels=("NOUN",), output_steps="every", kind="whole"),
            "Takes text and answers with one of 1 labels (NOUN) for every token. It needs whole sequences.",
        ),
        (model(task="text-generation"), "Takes text and answers with the text that follows."),
        (
            replace(model(task="text-generation"), spec=BEGUN),
            "Takes text and answers with the text that follows. It begins from image (5 numbers) and age "
            "(1 number), given by name as initial.",
        ),
        (
            model(task="text-classification"),
            "Takes text and answers with one of its labels for the whole text.",
        ),
        (
            model(task="forecasting", features=(FeatureInfo("close", "USD"),)),
            "Takes one number a time step (close in USD) and answers with a forecast of the next values, "
            "with quantiles.",
        ),
        (model(task=""), ""),
        (model(), ""),
    ],
    ids=lambda each: each.task if isinstance(each, ModelInfo) else each[:30],
)
def test_a_model_is_described_in_a_sentence(about: ModelInfo, told: str) -> None:
    assert sentence(about) == told


@pytest.mark.parametrize(
    ("about", "told"),
    [
        (
            model("it's", task="text-generation"),
            "seqserve generate --model 'it'\"'\"'s' \"Once upon a time\"",
        ),
        (
            replace(model(task="text-generation"), spec=BEGUN),
            "seqserve generate --model some --initial FILE.json ",
        ),
        (replace(model(input="steps", output="label"), spec=BEGUN), "seqserve infer some --file FILE.jsonl"),
        (model(task="forecasting"), "seqserve forecast --model some --file FILE.csv"),
        (model(input="text", output="label", output_steps="every"), "seqserve label some"),
        (model(input="text", output="embedding"), "seqserve infer some"),
        (model(input="tokens", output="label"), "echo 1 2 3 | seqserve infer some"),
        (model(input="steps", output="label"), "seqserve infer some --file FILE.csv"),
        (model(task=""), ""),
    ],
    ids=lambda each: each.task if isinstance(each, ModelInfo) else each[:30],
)
def test_a_command_to_try_is_named(about: ModelInfo, told: str) -> None:
    assert command(about).startswith(told)
    assert bool(command(about)) == bool(told)


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ([], "1"),
        ([LayerInfo("lstm", 8, False)] * 2, "1"),
        ([LayerInfo("lstm", 8, True), LayerInfo("gru", 4, False)], "1: 2 x lstm 8, gru 4"),
    ],
    ids=["unknown", "alike", "mixed"],
)
def test_layers_that_differ_are_listed(layers: list[LayerInfo], told: str) -> None:
    assert _layers(model(layer_info=tuple(layers))) == told


def test_the_sentence_stands_first_and_what_is_unknown_is_left_out(server: ScriptedServer) -> None:
    server.models.models.add(
        name="words", task="sequences", input="tokens", output="label", labels=["a", "b"]
    )
    server.models.models.add(name="bad", status=models.MODEL_STATUS_FAILED, message="sha256")
    rows = [line.split("\t")[0] for line in run(server, "models", "words").stdout.splitlines()]
    assert rows[:4] == ["property", "about", "try", "name"]
    assert "about" not in run(server, "models", "bad").stdout


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({}, ""),
        ({"beats_baselines": 1.0}, "beats its baselines"),
        ({"beats_baselines": 0.0}, "does not beat its baselines"),
    ],
)
def test_verdict_of_training_is_told(metrics: dict[str, float], told: str) -> None:
    assert _verdict(replace(model(), metrics=metrics)) == told
