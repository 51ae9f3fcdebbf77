"""S7 and S8: what the int8 variant gains, by number of rows, too, and what it costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from benchmarks import loads
from benchmarks.inprocess import classify, engine_of, generate, generator, runtime_of
from benchmarks.models import Model, shipped
from benchmarks.rounds import Claim, Sample, number, ratio, timed
from benchmarks.workshop import Contest, Row, Skipped, Workshop
from service.contract.spec import Variant

STREAMS = 64
WARM_UP = 16
VARIANTS: tuple[Variant, ...] = ("fp32", "int8")
LOSS = "held_out_loss"
ROWS_OF_A_TICK = (1, 4, 16, 64, 256)


def with_int8(name: str) -> Model:
    """A shipped model that has both variants.

    Raises:
        Skipped: it has not.
    """
    model = shipped(name)
    if "int8" not in model.spec.variants:
        raise Skipped(f"no int8 variant of {name}")
    return model


def loss_cost(metrics: dict[str, float]) -> float | None:
    """By how much int8 raises the held-out loss, nats, from a model's metrics; None where they do not say."""
    of_int8 = [value for key, value in metrics.items() if "int8" in key and key.endswith("loss")]
    return of_int8[0] - metrics[LOSS] if of_int8 else None


@contextmanager
def _speed(workshop: Workshop) -> Iterator[Contest]:
    model = with_int8("charlm")
    characters = workshop.size(256, 64)
    engines = {variant: engine_of(model, runtime_of(model, variant)) for variant in VARIANTS}
    for driven in engines.values():
        generate(driven, STREAMS, WARM_UP)
    works = {variant: generator(driven, STREAMS, characters) for variant, driven in engines.items()}
    contestants = {str(variant): workshop.alone(partial(timed, work)) for variant, work in works.items()}
    claims = [ratio("int8 / fp32", "int8", "fp32", 2.5)]
    cost = loss_cost(model.spec.metrics)
    if cost is not None:
        claims.append(
            Claim(
                "held-out loss of int8 - fp32, from model.json",
                lambda _: cost,
                0.01,
                is_at_most=True,
                unit="nats",
            )
        )
    facts = {
        f"{key}, nats": value
        for key, value in model.spec.metrics.items()
        if key.endswith("loss") and "baseline" not in key
    }
    yield Contest(
        contestants, claims, f"charlm, {STREAMS} streams x {characters} characters, engine in process", facts
    )


@contextmanager
def _by_rows(workshop: Workshop) -> Iterator[Contest]:
    model = with_int8("charlm")
    characters = workshop.size(8192, 2048)
    engines = {variant: engine_of(model, runtime_of(model, variant)) for variant in VARIANTS}

    def at(variant: Variant, rows: int) -> Callable[[], Sample]:
        generate(engines[variant], rows, WARM_UP)
        # A stream alone takes longer for a character than many side by side.
        work = generator(engines[variant], rows, max(WARM_UP, min(characters // rows, characters // 8)))
        return workshop.alone(partial(timed, work))

    contestants = {f"{one}, {rows} rows": at(one, rows) for rows in ROWS_OF_A_TICK for one in VARIANTS}
    claims = [
        ratio(f"int8 / fp32, {rows} rows", f"int8, {rows} rows", f"fp32, {rows} rows")
        for rows in ROWS_OF_A_TICK
    ]
    yield Contest(
        contestants, claims, f"charlm, up to {characters:,} characters in all, engine in process, by streams"
    )


@contextmanager
def _agreement(workshop: Workshop) -> Iterator[Contest]:
    model = with_int8("sentiment")
    inputs = model.encode(loads.review_texts(None if not workshop.is_quick else 500))
    engines = {variant: engine_of(model, runtime_of(model, variant)) for variant in VARIANTS}

    def compare() -> Sample:
        fp32, int8 = (np.stack(classify(engines[variant], inputs)).argmax(axis=1) for variant in VARIANTS)
        return Sample(100 * float(np.mean(fp32 == int8)))

    contestants = {"share of equal labels": workshop.alone(compare)}
    claims = [number("labels of int8 that agree with fp32's", "share of equal labels", 99.5, unit="%")]
    yield Contest(
        contestants, claims, f"sentiment, {len(inputs):,} shipped reviews, both variants in process"
    )


ROWS = (
    Row("S7", "int8 against fp32, generation, 64 streams", "characters/s", _speed),
    Row("int8-rows", "int8 against fp32, generation, by streams", "characters/s", _by_rows),
    Row("S8", "int8 against fp32, labels", "%", _agreement, most_rounds=1),
)
