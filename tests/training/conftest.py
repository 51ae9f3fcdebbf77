"""What the tests of training share: one thread, and the command on a folder of its own."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from service.contract import spec
from training.__main__ import main
from training.data.series import History, choose, describe, split
from training.data.sources import GOOG
from training.errors import TrainingError

Command = Callable[..., int]

OHLCV = ("open", "high", "low", "close", "volume")
GOOG_TABLE = choose(GOOG, OHLCV, "close", None, "date")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


def problem_of(action: Callable[[], object]) -> str | None:
    """What is wrong with the user's data, in one line; None: nothing."""
    try:
        action()
    except TrainingError as error:
        return str(error)
    return None


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """`python -m training ...` in this process, started in an empty folder; returns the exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        return main()

    return run


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """2,000 characters."""
    path = tmp_path / "own.txt"
    path.write_text(("A wise man told a story.\nIt was short — and true.\n" * 40)[:2000], encoding="utf-8")
    return path


@pytest.fixture
def reviews_file(tmp_path: Path) -> Path:
    """90 texts of three labels, told apart by one word each."""
    words = {"bad": "awful", "good": "lovely", "so-so": "fair"}
    rows = [
        f'{label},"A {word} film, number {index}"' for index in range(30) for label, word in words.items()
    ]
    path = tmp_path / "own.csv"
    path.write_text("verdict,review\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def random_walk(days: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Open, high, low, close, volume of a made-up share: (days, 5)."""
    generator = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(generator.normal(0, 0.02, days)))
    start = close * np.exp(generator.normal(0, 0.01, days))
    high, low = np.maximum(start, close) * 1.01, np.minimum(start, close) * 0.99
    return np.stack([start, high, low, close, np.exp(generator.normal(10, 1, days))], axis=1)


def made_up(days: int = 150, seed: int = 0) -> tuple[History, spec.ForecastSpec]:
    """A random walk as a history, with its transforms and scales."""
    history = split(random_walk(days, seed))
    return history, describe(history, GOOG_TABLE)


def write_prices(path: Path, values: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> Path:
    """The rows as a CSV file with dates, one row a day."""
    first = np.datetime64("2001-01-01")
    lines = [
        ",".join([str(first + day), *(repr(float(value)) for value in row)]) for day, row in enumerate(values)
    ]
    path.write_text("date,open,high,low,close,volume\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def prices_file(tmp_path: Path) -> Path:
    """150 days."""
    return write_prices(tmp_path / "prices.csv", random_walk(150))
