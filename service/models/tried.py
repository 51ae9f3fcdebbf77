"""Declares the result of a trial, which the server takes over."""

from typing import NamedTuple


class Tried(NamedTuple):
    """Result of a trial that a version has passed.

    Attributes:
        sha256: hash of the model.json that was tried.
        is_batch_invariant: outputs were measured to have the same bits alone and in every batch.
    """

    sha256: str
    is_batch_invariant: bool
