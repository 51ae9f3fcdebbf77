"""When a sequence got how far: stamped by the engine, read by the traces."""

from dataclasses import dataclass


@dataclass(slots=True)
class Times:
    """Monotonic seconds at which a sequence reached each stage; 0: not yet.

    Attributes:
        submitted_at: it was handed to the engine.
        admitted_at: it got its first slot.
        prefilled_at: its prompt had been run, or was found in the prompt cache (generation alone).
        ended_at: its last output, or its error, was there.
    """

    submitted_at: float
    admitted_at: float = 0.0
    prefilled_at: float = 0.0
    ended_at: float = 0.0
