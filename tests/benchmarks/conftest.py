"""Tiny models that every way of computing must agree on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import loads
from benchmarks.machine import choose_cores
from benchmarks.models import Model, read_model
from benchmarks.workshop import Workshop
from tests import tiny
from training.networks.network import RecurrentNetwork


@dataclass(frozen=True, slots=True)
class Tiny:
    """A model on disk and the network behind it."""

    model: Model
    network: RecurrentNetwork


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder, network = tiny.export_classifier(tmp_path_factory.mktemp("classifier"))
    return Tiny(read_model(folder), network)


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder, network = tiny.export_generator(tmp_path_factory.mktemp("generator"))
    return Tiny(read_model(folder), network)


@pytest.fixture(scope="session")
def inputs() -> list[NDArray[np.int64]]:
    """Texts of unlike lengths for the classifier."""
    return loads.token_arrays(np.minimum(loads.mixed_lengths(70), 60), len(tiny.WORDS))


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with Workshop(tmp_path, choose_cores(), is_quick=True) as made:
        yield made
