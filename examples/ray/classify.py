"""Classifies the texts of a folder of Parquet or text files, with an engine in each Ray Data worker.

    .venv-ray/bin/python examples/ray/classify.py exported/sentiment/4 reviews labelled --workers 2

Reads every file of the folder `reviews`: a column of Parquet files (`--column`, text by default), or the
lines of files that end in .txt. Writes Parquet files into the folder `labelled`, each row as it was with
three columns more: label, probability, and error, which is empty where the model takes the text.

Nothing goes over a network between a worker and its model. On a cluster (`--address auto`) the model's folder
and both others must be where every machine finds them.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, Dataset

from seqserve.results import Classification
from service.bulk import Bulk
from service.errors import InvalidArgument

ROOT = Path(__file__).parents[2]
# Texts in a batch: enough to fill the engine's slots, few enough to be done again when a worker dies.
BATCH_ROWS = 4096


# [worker]
class Classifier:
    """A worker: loads the model once, then classifies one batch after the other.

    Args:
        folder: folder of the model's version, .../<name>/<version>.
        column: column of the texts.
        threads: threads of the engine and its graph together.
    """

    def __init__(self, folder: str, column: str, threads: int) -> None:
        self._model = Bulk(folder, "--threads", str(threads))
        self._column = column

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with the columns label, probability and error."""
        found = self._model.classify([str(text) for text in batch[self._column]])
        labels, probabilities, errors = zip(*map(cells, found), strict=True)
        return batch | {
            "label": np.array(labels, object),
            "probability": np.array(probabilities, np.float32),
            "error": np.array(errors, object),
        }


def cells(found: Classification | InvalidArgument) -> tuple[str, float, str]:
    """Return label, probability and error of a text, each empty where there is none."""
    if isinstance(found, InvalidArgument):
        return "", math.nan, str(found)
    return found.label, found.probability, ""


# [end]


# [read]
def texts_in(folder: Path, column: str) -> Dataset:
    """Return the rows of the folder's files."""
    if any(folder.glob("*.txt")):
        return ray.data.read_text(str(folder), file_extensions=["txt"]).rename_columns({"text": column})
    return ray.data.read_parquet(str(folder))


def classified(rows: Dataset, folder: Path, column: str, workers: int, threads: int) -> Dataset:
    """Return the rows with their labels; a worker that dies is started again, and its batch with it."""
    return rows.map_batches(
        Classifier,
        fn_constructor_args=(str(folder.absolute()), column, threads),
        batch_size=BATCH_ROWS,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=threads,
    )


# [end]


def arguments() -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="folder of a version, .../<name>/<version>")
    parser.add_argument("texts", type=Path, help="folder of Parquet or .txt files")
    parser.add_argument("labelled", type=Path, help="folder that is written")
    parser.add_argument("--column", default="text", help="column of the texts (default: text)")
    parser.add_argument("--workers", type=int, default=2, help="workers, each with a model (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker (default: 1)")
    parser.add_argument("--address", help="of a Ray cluster (default: one on this machine alone)")
    return parser.parse_args()


def connect(address: str | None, cores: int) -> None:
    """Connect to a cluster, sending it this code, or start one of so many cores on this machine."""
    modules = [str(ROOT / "service"), str(ROOT / "seqserve")]
    if address is None:
        # Without an address Ray would join what RAY_ADDRESS names, or another program's Ray on this machine.
        # 127.0.0.1 would be replaced by an address that other machines reach.
        ray.init(
            "local",
            num_cpus=cores,
            include_dashboard=False,
            runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
            _node_ip_address="127.0.0.2",
        )
    else:
        ray.init(address, runtime_env={"py_modules": modules})


def main() -> None:
    """Run the command."""
    given = arguments()
    connect(given.address, given.workers * given.threads + 1)  # one more for reading and writing
    started = time.monotonic()
    rows = classified(
        texts_in(given.texts, given.column), given.model, given.column, given.workers, given.threads
    )
    rows.write_parquet(str(given.labelled))
    print(f"{time.monotonic() - started:.1f} s with {given.workers} workers")


if __name__ == "__main__":
    main()
