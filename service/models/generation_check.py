"""Checks that a generation graph does what the chunk cell and the sampler do, a step at a time."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from service.contract import spec
from service.engine.draws import clear_steps, set_options, tolerance
from service.engine.sampling import key_of, options_of, pick, uniforms
from service.errors import ModelFailure, ModelRefused
from service.models.samples import Samples
from service.runtime import Chunk, GenerationRuntime, Runtime, StepRun

# Sums of several rows may be taken in another order than those of one.
_BATCHES = (1, 3, 16)
_STEPS = 6
_SEED = 3
# Temperature, top_k and top_p of rows, in turn. None is greedy: the least difference would change the token.
_OPTIONS = ((1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.9), (0.9, 3, 0.8))


def check_generation(
    model: spec.ModelSpec, runtime: Runtime, generator: GenerationRuntime, samples: Samples, allowed: float
) -> bool:
    """Check a generation graph.

    Args:
        model: spec of the version.
        runtime: its chunk cell.
        generator: its generation graph.
        samples: give the states at the start.
        allowed: largest absolute difference of logits and states.

    Returns:
        Whether all logits and states have the same bits.

    Raises:
        ModelRefused: they differ by more, or a token is not the sampler's.
    """
    has_same_bits = True
    try:
        for batch in _BATCHES:
            run = _run(model, samples, batch)
            generator.bind(run).run()
            _check_tokens(model, run)
            for found, expected in _replayed(model, runtime, run):
                has_same_bits &= found.tobytes() == expected.tobytes()
                error = float(np.abs(found - expected).max())
                if not error <= allowed:
                    raise ModelRefused(
                        "generation",
                        f"outputs and states within {allowed} of those of single steps",
                        f"{error:.3g} off with {batch} rows",
                    )
    except ModelFailure as failure:
        raise ModelRefused("generation", "outputs of the generation graph", str(failure)) from failure
    return has_same_bits


def _run(model: spec.ModelSpec, samples: Samples, batch: int) -> StepRun:
    """Return a run of random first tokens."""
    random = np.random.default_rng(_SEED)
    starts = [samples.golden[row % len(samples.golden)].start for row in range(batch)]
    state = [np.stack(tensors) for tensors in zip(*starts, strict=True)]
    keys = np.array([key_of(row) for row in range(batch)])
    reached, weights, totals = (np.empty((_STEPS, batch, 1)) for _ in range(3))
    run = StepRun(
        tokens=random.integers(model.input.size, size=batch),
        state=state,
        uniforms=uniforms(keys, np.arange(_STEPS, dtype=np.uint64)[:, None])[:, :, None],
        inverse=np.empty((batch, 1)),
        has_cuts=np.empty((), np.bool_),
        top_k=np.empty((batch, 1), np.int64),
        top_p=np.empty((batch, 1)),
        after=[np.empty_like(tensor) for tensor in state],
        picked=np.empty((_STEPS, batch), np.int64),
        reached=reached,
        weights=weights,
        totals=totals,
        cut_margins=np.empty((_STEPS, 1, 1)),
        logits=np.empty((_STEPS, batch, model.outputs), np.float32),
    )
    temperature, top_k, top_p = _options(batch)
    set_options(run, options_of(temperature, top_k, top_p, model.outputs), temperature, model.outputs)
    return run


def _options(batch: int) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Return temperature, top_k and top_p of rows, (B,) each."""
    chosen = [_OPTIONS[row % len(_OPTIONS)] for row in range(batch)]
    temperature, top_k, top_p = (np.array(values) for values in zip(*chosen, strict=True))
    return temperature, top_k, top_p


def _check_tokens(model: spec.ModelSpec, run: StepRun) -> None:
    """Check that the tokens are those that the sampler picks of the graph's logits.

    Raises:
        ModelRefused: one is not, or the logits are no finite numbers.
    """
    batch = len(run.tokens)
    options, keys = (
        options_of(*_options(batch), model.outputs),
        np.array([key_of(row) for row in range(batch)]),
    )
    for step in range(clear_steps(run, tolerance(model.outputs))):
        try:
            expected = pick(run.logits[step], options, keys, np.full(batch, step, np.uint64))
        except FloatingPointError as error:
            raise ModelRefused("generation", "finite outputs of the generation graph", str(error)) from error
        if (run.picked[step] != expected).any():
            raise ModelRefused(
                "generation", "the tokens that the sampler picks", f"others in step {step} of {batch} rows"
            )


def _replayed(
    model: spec.ModelSpec, runtime: Runtime, run: StepRun
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Feed the tokens to the chunk cell a step at a time; yield pairs of logits and of states, theirs last.

    Raises:
        ModelRefused: a token is out of range.
    """
    if run.picked.min() < 0 or run.picked.max() >= model.outputs:
        raise ModelRefused("generation", f"tokens of 0..{model.outputs - 1}", "others")
    batch, tokens, state = len(run.tokens), run.tokens, run.state
    for step in range(_STEPS):
        after = [np.empty_like(tensor) for tensor in state]
        output = np.empty((batch, model.outputs), np.float32)
        ones = np.ones(batch, np.int32)
        runtime.bind(Chunk(tokens[:, None].copy(), ones, state, np.arange(batch), output, after)).run()
        yield run.logits[step], output
        tokens, state = run.picked[step], after
    yield from zip(run.after, state, strict=True)
