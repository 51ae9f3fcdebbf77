"""silero-vad from PyPI, converted and served: streams of frames get what its own package gives."""

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import pytest_asyncio
import torch
from numpy.typing import NDArray

from seqserve.v1 import sequences_pb2 as pb
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.training.convert.walk.audio import RATE, voice
from tests.training.convert.walk.wheels import unpacked
from training.convert.api import convert

MODEL: Final = "voice-activity"
FRAMES: Final = 48
STREAMS: Final = 5
# The same kernels run, in batches of other sizes.
TOLERANCE: Final = 1e-6
Frames = NDArray[np.float32]

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("silero-vad", tmp_path_factory.mktemp("silero"))


@contextmanager
def imported(package: Path) -> Iterator[Any]:
    """The package's own wrapper of its ONNX file; it sets torch's threads when it is imported."""
    threads = torch.get_num_threads()
    sys.path.insert(0, str(package))
    try:
        wrapper = importlib.import_module("silero_vad.utils_vad").OnnxWrapper
        yield wrapper(str(package / "silero_vad/data/silero_vad.onnx"), force_onnx_cpu=True)
    finally:
        sys.path.remove(str(package))
        torch.set_num_threads(threads)
        for name in [name for name in sys.modules if name.split(".")[0] == "silero_vad"]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def sounds() -> list[Frames]:
    return [voice(FRAMES, seed) for seed in range(STREAMS)]


@pytest.fixture(scope="module")
def expected(package: Path, sounds: list[Frames]) -> list[Frames]:
    """What the package says of each frame, float32 (frames,) a sound."""
    with imported(package) as wrapper:
        found = []
        for frames in sounds:
            wrapper.reset_states()
            rows = [float(wrapper(torch.from_numpy(frame), RATE)[0, 0]) for frame in frames]
            found.append(np.array(rows, np.float32))
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def calls(package: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Calls]:
    folder = tmp_path_factory.mktemp("served")
    convert(
        package / "silero_vad/data/silero_vad.onnx",
        name=MODEL,
        repository=folder,
        state=(("state", "stateN"),),
        fixed={"sr": RATE},
        width=512,
        overlap=64,
        output="probabilities",
        labels=["silence", "speech"],
    )
    async with ServerProcess(folder) as server, server.channel() as channel:
        yield Calls(channel)


def steps(frames: Frames) -> pb.SequenceInput:
    return pb.SequenceInput(steps=pb.StepValues(features=frames.shape[1], values=frames.ravel()))


def speech(output: pb.SequenceOutput) -> Frames:
    """The probability of speech at each frame, float32 (frames,)."""
    return np.array(output.probabilities, np.float32).reshape(output.steps, 2)[:, 1]


async def test_sounds_are_heard_as_speech_and_silence(expected: list[Frames]) -> None:
    """Sounds that the network takes for noise would make the comparisons below say little."""
    assert np.max([one.max() for one in expected]) > 0.7
    assert np.max([one.min() for one in expected]) < 0.05


async def test_whole_sounds_equal_the_package(
    calls: Calls, sounds: list[Frames], expected: list[Frames]
) -> None:
    outputs = await calls.infer([steps(one) for one in sounds], MODEL, output_steps=pb.OUTPUT_STEPS_EVERY)
    for output, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(speech(output), wanted, rtol=0, atol=TOLERANCE)
        assert list(output.labels) == ["speech" if one > 0.5 else "silence" for one in wanted]


async def test_streams_side_by_side_equal_the_package_frame_by_frame(
    calls: Calls, sounds: list[Frames], expected: list[Frames]
) -> None:
    """One frame a message; the sounds begin one after the other, so that their places in time differ."""
    requests = [
        pb.InferStreamRequest(id=str(at), model=MODEL, input=steps(sounds[at][tick - at : tick - at + 1]))
        for tick in range(FRAMES + STREAMS)
        for at in range(STREAMS)
        if 0 <= tick - at < FRAMES
    ]
    heard: dict[str, list[float]] = {str(at): [] for at in range(STREAMS)}
    async for answer in calls.sequences.InferStream(iter(requests)):
        assert not answer.error.code, answer.error
        heard[answer.id].append(float(speech(answer.output)[0]))
    for at, wanted in enumerate(expected):
        np.testing.assert_allclose(heard[str(at)], wanted, rtol=0, atol=TOLERANCE)
