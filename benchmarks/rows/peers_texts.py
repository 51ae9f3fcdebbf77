"""P1 and P2: texts of mixed lengths through unary ModelInfer, against Triton: throughput and tails."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from benchmarks import client, loads
from benchmarks.models import Model
from benchmarks.peers import catalog
from benchmarks.peers.load import closed_loop
from benchmarks.peers.messages import tensors_of, text_request
from benchmarks.peers.repository import TritonModel
from benchmarks.rounds import Claim, Sample, ratio
from benchmarks.rows.peers import P50_MS, P99_MS, fastest, note_ratio, triton_of
from benchmarks.servers import serve
from benchmarks.untrained import MIXED
from benchmarks.workshop import Contest, Row, Workshop

IN_FLIGHT = 64
CONNECTIONS = 4
SHORT_P99_MS = f"<= {loads.SHORT} tokens: p99 ms"
SHORT_P50_MS = f"<= {loads.SHORT} tokens: p50 ms"
OURS, BEST, USUAL = "ours", "Triton, best", "Triton, usual"
SEVERAL = f", {CONNECTIONS} connections"
TOLERANCE = 1e-4
# Forms of its best: rows of a batch, requests of an execution.
SORTED = ((4, 32), (4, 64), (8, 64), (16, 64))


def models_of(model: Model) -> dict[str, TritonModel]:
    """Return the forms of Triton's best by a sentence on each."""
    return {
        f"batches of {rows} of at most {most} texts": catalog.sorted_texts(
            f"sorted-{rows}-{most}", model, rows, most
        )
        for rows, most in SORTED
    }


def requests_of(name: str, texts: Sequence[str], shape: Sequence[int]) -> list[bytes]:
    """Return a request for each text."""
    return [text_request(name, text, shape) for text in texts]


def check_equal(answers: Sequence[bytes], expected: Sequence[bytes]) -> None:
    """Both servers gave each text the same label and the same probabilities, within 1e-4."""
    for found, wanted in zip(map(tensors_of, answers), map(tensors_of, expected), strict=True):
        assert found.text("label") == wanted.text("label"), "expected equal labels"
        difference = np.abs(found.numbers("probabilities") - wanted.numbers("probabilities")).max()
        assert difference < TOLERANCE, f"expected equal probabilities, found a difference of {difference}"


def answered(
    workshop: Workshop,
    server: client.Target,
    requests: Sequence[bytes],
    is_short: NDArray[np.bool_],
    connections: int = 1,
) -> Callable[[], Sample]:
    """Return a contestant: texts a second, with the latencies of all texts and of short ones as notes."""

    def run() -> Sample:
        seen = workshop.run(closed_loop(server, client.MODEL_INFER, requests, IN_FLIGHT, connections))
        made = seen.usage.sample(len(requests))
        notes = {
            P50_MS: seen.percentile(50),
            P99_MS: seen.percentile(99),
            SHORT_P50_MS: seen.percentile(50, is_short),
            SHORT_P99_MS: seen.percentile(99, is_short),
        }
        return Sample(made.value, made.by_cpu, {**notes, **made.notes})

    return run


@contextmanager
def _texts(workshop: Workshop) -> Iterator[Contest]:
    model = workshop.model(MIXED)
    lengths = loads.mixed_lengths(workshop.size(1500, 200))
    texts = loads.texts_of(loads.token_arrays(lengths, loads.WORDS), loads.vocabulary())
    is_short = lengths <= loads.SHORT
    forms = models_of(model)
    usual = catalog.usual_texts("usual", model)
    with (
        triton_of(workshop, [*forms.values(), usual]) as triton,
        serve(model.repository, workshop.cores.server) as ours,
    ):

        def of_triton(name: str, connections: int = 1) -> Callable[[], Sample]:
            requests = requests_of(name, texts, (1, 1))
            return answered(workshop, triton, requests, is_short, connections)

        def of_ours(connections: int = 1) -> Callable[[], Sample]:
            return answered(workshop, ours, requests_of(model.name, texts, (1,)), is_short, connections)

        best, values = fastest({what: of_triton(form.name) for what, form in forms.items()})
        name = forms[best].name
        _compare(
            workshop, ours, requests_of(model.name, texts, (1,)), triton, requests_of(name, texts, (1, 1))
        )
        contestants = {
            OURS: of_ours(),
            BEST: of_triton(name),
            USUAL: of_triton(usual.name),
            OURS + SEVERAL: of_ours(CONNECTIONS),
            BEST + SEVERAL: of_triton(name, CONNECTIONS),
        }
        of_triton(usual.name)()
        yield Contest(
            contestants, _claims(), _load(len(texts), best), {f"Triton, {k}": v for k, v in values.items()}
        )


def _compare(
    workshop: Workshop,
    ours: client.Target,
    our_requests: Sequence[bytes],
    triton: client.Target,
    its_requests: Sequence[bytes],
) -> None:
    found, wanted = (
        workshop.run(closed_loop(server, client.MODEL_INFER, requests, IN_FLIGHT)).answers
        for server, requests in ((triton, its_requests), (ours, our_requests))
    )
    check_equal(found, wanted)


def _claims() -> list[Claim]:
    return [
        ratio("P1: ours / Triton's best", OURS, BEST, 1.2),
        ratio("P1: ours / Triton's usual form", OURS, USUAL),
        ratio(f"P1: ours / Triton's best{SEVERAL}", OURS + SEVERAL, BEST + SEVERAL, 1.2),
        note_ratio(
            f"P2: p99 of texts of <= {loads.SHORT} tokens: Triton's best / ours",
            SHORT_P99_MS,
            BEST,
            OURS,
            2.0,
            is_at_most=False,
        ),
        note_ratio("P2: p99 of all texts: ours / Triton's best", P99_MS, OURS, BEST, 1.5, is_at_most=True),
    ]


def _load(count: int, best: str) -> str:
    return (
        f"{count:,} texts of lognormal lengths, unary ModelInfer, one text a call, {IN_FLIGHT} in flight on "
        f"one connection or {CONNECTIONS}; Triton's best sorts inside its model and runs {best}, the fastest "
        "of the forms below; its usual form pads what dynamic batching gives it to the longest; answers are "
        "compared"
    )


ROWS = (Row("P1", "mixed lengths through unary ModelInfer, against Triton (P1, P2)", "sequences/s", _texts),)
