"""What the rows against Triton share: starting it, or the reason to skip; choosing its best form."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from benchmarks.peers.environment import MissingPeer, find_environment
from benchmarks.peers.repository import TritonModel
from benchmarks.peers.triton import Triton, serve_triton
from benchmarks.rounds import Claim, Round, Sample
from benchmarks.workshop import Skipped, Workshop

P50_MS, P99_MS = "p50 ms", "p99 ms"


@contextmanager
def triton_of(workshop: Workshop, models: Sequence[TritonModel]) -> Iterator[Triton]:
    """Run Triton with these models on the server's core.

    Raises:
        Skipped: there is no Triton here; names what is missing.
    """
    try:
        environment = find_environment()
    except MissingPeer as reason:
        raise Skipped(str(reason)) from reason
    with serve_triton(environment, models, workshop.cores.server) as triton:
        yield triton


def fastest(forms: Mapping[str, Callable[[], Sample]]) -> tuple[str, dict[str, float]]:
    """Run each form twice, warm-up included; return the name of the fastest, and the better value of each."""
    values: dict[str, float] = {}
    for run in (1, 2):
        for name, form in forms.items():
            value = form().value
            values[name] = value if run == 1 else max(value, values[name])
    return max(values, key=values.__getitem__), values


def note_ratio(what: str, note: str, over: str, under: str, target: float, *, is_at_most: bool) -> Claim:
    """Return a claim on a note of one contestant divided by the same note of another."""

    def of(samples: Round) -> float:
        return samples[over].notes[note] / samples[under].notes[note]

    return Claim(what, of, target, is_at_most)
