"""The examples by name, each trained once for all tests that look at it."""

from collections.abc import Callable, Sequence
from functools import cache

import torch

from tests.examples import activity, anomaly, captions, dates, frames, made, tags, voices
from tests.examples.made import Answer, Made
from training.export.sequences.compare import Example

_MAKERS: dict[str, Callable[[], Made]] = {
    "activity": activity.make,
    "tags": tags.make,
    "voices": voices.make,
    "anomaly": anomaly.make,
    "frames": frames.make,
    "captions": captions.make,
    "dates": dates.make,
}
NAMES = tuple(_MAKERS)


@cache
def example(name: str) -> Made:
    """Return a trained example."""
    torch.set_num_threads(1)
    return _MAKERS[name]()


def answers(name: str, questions: Sequence[Example]) -> list[Answer]:
    """Return what PyTorch answers to questions of an example."""
    answer = {"captions": captions.answers, "dates": dates.answers}.get(name, made.answers)
    return answer(example(name), questions)
