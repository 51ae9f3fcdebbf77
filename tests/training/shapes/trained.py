"""The shapes' models, trained once for all tests that look at them."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from training.shapes import delay, small
from training.shapes.solved import Solved

SEED = 0
# Two short forms of ten years, and too few steps to get every day right: what seconds suffice for.
PLAN = delay.Plan(forms=("4 Jul 2026", "4.7.2026"), first_year=2020, last_year=2029, epochs=3, batches=130)


@cache
def dates() -> Solved:
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        return delay.train("lstm", SEED, PLAN, Path(folder))


@cache
def alphabet() -> Solved:
    torch.set_num_threads(1)
    return small.teach_alphabet("lstm", SEED)


@cache
def digits() -> Solved:
    torch.set_num_threads(1)
    return small.teach_digits("lstm", SEED)


@cache
def majority() -> Solved:
    torch.set_num_threads(1)
    return small.teach_majority("lstm", SEED)


@cache
def wave() -> Solved:
    torch.set_num_threads(1)
    return small.teach_wave("lstm", SEED)
