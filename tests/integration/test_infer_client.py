"""The client's and the command's sequences against the real server, and bare onnxruntime as the reference."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from seqserve import AsyncClient, Client, InvalidArgument
from seqserve.cli.app import app
from tests.contract2 import (
    ACTIVITY,
    BEGUN,
    ODD,
    TAGS,
    TOPICS,
    VOICE,
    Reference,
    export,
    initial_of,
    sequences_of,
)
from tests.integration.process import ServerProcess
from tests.tiny import export_all

NETS = (ACTIVITY, BEGUN, ODD, TAGS, TOPICS, VOICE)
ROWS = [[0.5, 1.0, 2.0], [1.5, -1.0, 3.0], [0.0, 2.0, 4.0]]
TABLE = "power,time,x,y\n2,0.00,0.5,1\n3,0.02,1.5,-1\n4,0.04,0,2\n"


@pytest_asyncio.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("sequences")
    export_all(repository)
    for net in NETS:
        export(net, repository)
    async with ServerProcess(repository) as server:
        yield server


async def run(served: ServerProcess, *arguments: str, stdin: str | bytes = "") -> Any:
    """Run the command beside the event loop, which reads the server's log."""
    return await asyncio.to_thread(
        CliRunner().invoke, app, ["--server", served.address, *arguments], input=stdin, catch_exceptions=False
    )


async def test_outputs_are_those_of_the_network_alone(served: ServerProcess) -> None:
    reference = Reference(TOPICS)
    tokens = sequences_of(TOPICS, (1, 7, 30))
    async with AsyncClient(served.address) as client:
        outputs = await client.infer(tokens, model="topics", every=True, raw=True)
    for given, output in zip(tokens, outputs, strict=True):
        np.testing.assert_allclose(output.values, reference.outputs(given), atol=1e-5)
        assert output.probabilities.shape == (len(given), 4)


async def test_a_stream_gives_what_the_whole_sequence_gives(served: ServerProcess) -> None:
    given = {str(number): each for number, each in enumerate(sequences_of(VOICE, (9, 9, 9)))}
    async with AsyncClient(served.address) as client:
        whole = await client.infer(list(given.values()), model="voice", raw=True)
        async with client.infer_stream(model="voice", raw=True) as stream:
            steps = [
                await stream.push_all({name: rows[step : step + 1] for name, rows in given.items()})
                for step in range(9)
            ]
    for number, output in enumerate(whole):
        found = [answers[number].output for answers in steps]
        assert all(each is not None for each in found)
        joined = np.concatenate([each.values for each in found if each is not None])
        np.testing.assert_array_equal(joined, output.values)
        assert [each.position for each in found if each is not None] == list(range(1, 10))


async def test_a_sealed_state_goes_on_in_another_stream(served: ServerProcess) -> None:
    (given,) = sequences_of(TOPICS, (6,))
    async with AsyncClient(served.address) as client:
        (whole,) = await client.infer([given], model="topics", every=True)
        async with client.infer_stream(model="topics", every=True) as stream:
            first = await stream.push(given[:2], return_state=True)
        async with client.infer_stream(model="topics", every=True) as stream:
            rest = await stream.push(given[2:], state=first.state)
    joined = np.concatenate([first.probabilities, rest.probabilities])
    np.testing.assert_array_equal(joined, whole.probabilities)
    assert rest.position == 6


async def test_initial_rows_begin_a_sequence_and_a_stream_alike(served: ServerProcess) -> None:
    (given,) = sequences_of(BEGUN, (6,))
    initial = initial_of(BEGUN, 3)
    async with AsyncClient(served.address) as client:
        (whole,) = await client.infer([given], model="begun", initial=initial)
        async with client.infer_stream(model="begun") as stream:
            first = await stream.push(given[:2], initial=initial, return_state=True)
            rest = await stream.push(given[2:])
    np.testing.assert_array_equal(np.concatenate([first.values, rest.values]), whole.values)
    np.testing.assert_allclose(whole.values, Reference(BEGUN).outputs(given, initial), atol=1e-5)


async def test_tables_and_arrays_give_the_same_labels(served: ServerProcess) -> None:
    rows = [dict(zip(("power", "y", "x"), row[::-1], strict=True)) for row in ROWS]

    def both() -> tuple[Any, Any]:
        with Client(served.address) as client:
            return client.infer([rows], model="activity"), client.infer(np.array([ROWS]), model="activity")

    by_name, by_place = await asyncio.to_thread(both)
    assert by_name == by_place
    assert by_name[0].label in ("still", "walking", "running")


async def test_refusals_of_the_server_name_the_sequence_and_its_place(served: ServerProcess) -> None:
    async with AsyncClient(served.address) as client:
        with pytest.raises(InvalidArgument) as caught:
            await client.infer([[[1.0, 2.0, 3.0]], [[1.0, 2.0]]], model="activity")
        async with client.infer_stream(model="activity") as stream:
            with pytest.raises(InvalidArgument):
                await stream.push([[1.0, 2.0]])
            assert (await stream.push([[1.0, 2.0, 3.0]])).position == 1
    assert caught.value.violations[0].field.startswith("inputs[1]")


async def test_the_command_reads_tables_and_says_what_is_wrong(served: ServerProcess, tmp_path: Path) -> None:
    good = await run(served, "infer", "activity", "--json", stdin=TABLE)
    with_names = json.loads(good.stdout)
    path = tmp_path / "rows.npy"
    np.save(path, np.array(ROWS))
    assert (
        json.loads((await run(served, "infer", "activity", "--json", "--file", str(path))).stdout)
        == with_names
    )
    bad = await run(served, "infer", "activity", stdin="x,y,power\n1,2,-1\n")
    assert (bad.exit_code, "standard input: " in bad.stderr) == (1, True)


async def test_following_answers_as_the_whole_sequence(served: ServerProcess) -> None:
    whole = await run(served, "infer", "activity", "--every", "--json", stdin=TABLE)
    followed = await run(served, "infer", "activity", "--follow", "--json", stdin=TABLE)
    steps = [json.loads(line) for line in followed.stdout.splitlines()]
    assert json.loads(whole.stdout)["probabilities"] == [each["probabilities"][0] for each in steps]
    assert [each["position"] for each in steps] == [1, 2, 3]


async def test_labels_stand_at_their_characters(served: ServerProcess) -> None:
    result = await run(served, "label", "tags", "--json", "abcé dea")
    found = json.loads(result.stdout)["parts"]
    assert [found[0]["start"], found[-1]["end"]] == [0, 8]
    assert "".join(each["text"] for each in found) == "abcé dea"


async def test_classifiers_of_texts_answer_as_well(served: ServerProcess) -> None:
    async with AsyncClient(served.address) as client:
        (inferred,) = await client.infer("good", model="moods")
        (classified,) = await client.classify("good", model="moods")
    assert inferred.label == classified.label
    assert max(inferred.probability_rows[0]) == classified.probability


async def test_models_are_described_by_what_they_take(served: ServerProcess) -> None:
    told = {
        name: (await run(served, "models", name)).stdout.splitlines()[1]
        for name in ("activity", "tags", "odd")
    }
    assert {name: text.removeprefix("about\tTakes ") for name, text in told.items()} == {
        "activity": "rows of 3 numbers a time step (x, y in g; power in W) and answers with one of 3 labels "
        "(still, walking, running) for the whole sequence.",
        "tags": "text and answers with one of 3 labels (none, vowel, consonant) for every token.",
        "odd": "rows of 4 numbers a time step and answers with 2 numbers for every time step.",
    }


async def test_numbers_are_titled_by_their_columns(served: ServerProcess) -> None:
    result = await run(served, "infer", "odd", "--follow", stdin="1,2,3,4\n4,3,2,1\n")
    assert result.stdout.splitlines()[0] == "sequence\tstep\tspeed\tturn"
