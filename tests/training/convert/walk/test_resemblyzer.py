"""Resemblyzer from PyPI, converted from its checkpoint and a class, and served: a voice's embedding."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import pytest_asyncio
import torch
from numpy.typing import NDArray

from seqserve.v1 import sequences_pb2 as pb
from tests.integration.calls import Calls
from tests.integration.process import ServerProcess
from tests.training.convert.walk.voice_encoder import VoiceEncoder
from tests.training.convert.walk.wheels import unpacked
from training.convert.api import convert

MODEL: Final = "voice-embedding"
LENGTHS: Final = (1, 37, 160)
TOLERANCE: Final = 2e-5
Mels = NDArray[np.float32]

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("Resemblyzer", tmp_path_factory.mktemp("resemblyzer")) / "resemblyzer/pretrained.pt"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def calls(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Calls]:
    folder = tmp_path_factory.mktemp("served")
    convert(VoiceEncoder(), name=MODEL, repository=folder, checkpoint=checkpoint, output="embedding")
    async with ServerProcess(folder) as server, server.channel() as channel:
        yield Calls(channel)


def mels(length: int) -> Mels:
    """Powers as a mel filter bank gives them: above 0, most of them small."""
    return np.random.default_rng(length).gamma(0.3, 0.05, (length, 40)).astype(np.float32)


def steps(frames: Mels) -> pb.SequenceInput:
    return pb.SequenceInput(steps=pb.StepValues(features=frames.shape[1], values=frames.ravel()))


def embedded(checkpoint: Path, frames: Mels) -> Mels:
    """What the network in torch gives, float32 (256,)."""
    module = VoiceEncoder().eval()
    module.load_state_dict(torch.load(checkpoint, weights_only=True, map_location="cpu")["model_state"])
    with torch.no_grad():
        found: Mels = module(torch.from_numpy(frames)[None])[0].numpy()
    return found


async def test_voices_equal_the_network_in_torch(calls: Calls, checkpoint: Path) -> None:
    outputs = await calls.infer([steps(mels(length)) for length in LENGTHS], MODEL)
    for length, output in zip(LENGTHS, outputs, strict=True):
        assert (output.steps, output.width) == (1, 256)
        wanted = embedded(checkpoint, mels(length))
        np.testing.assert_allclose(output.values, wanted, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(np.linalg.norm(output.values), 1, atol=1e-5)


async def test_voice_is_known_better_with_every_frame_of_a_stream(calls: Calls, checkpoint: Path) -> None:
    """An embedding after each message is that of all frames so far."""
    frames = mels(60)
    requests = [
        pb.InferStreamRequest(id="a", model=MODEL, input=steps(frames[start : start + 20]))
        for start in (0, 20, 40)
    ]
    answers = [one async for one in calls.sequences.InferStream(iter(requests))]
    for end, answer in zip((20, 40, 60), answers, strict=True):
        wanted = embedded(checkpoint, frames[:end])
        np.testing.assert_allclose(answer.output.values, wanted, rtol=0, atol=TOLERANCE)
