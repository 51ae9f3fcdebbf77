"""Tells which draws of a generation graph are those of `service.engine.sampling`, bit for bit.

The graph and the sampler do the same sums in float64, and round exponentials and sums differently. A sum of V
weights, the largest of which is 1, is off by at most V + 8 + 4 ln V units of 2**-52 of the total on either
side: V additions, exponentials within two units in the last place, and scaled logits whose errors count by
their weights, the mean of which is at most ln V. A draw that is farther than both from the sums around it is
the same draw; of others, the sampler decides. `tolerance` has a margin of 8.
"""

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling import Options
from service.runtime import StepRun

# Divides the logits of greedy rows: all but the largest get no weight.
_GREEDY = 1e300
_NO_TOP_P = 2.0


def tolerance(vocabulary: int) -> float:
    """Return the distance from a sum, as a part of the total, within which a draw is not clear."""
    return (vocabulary + 64) * 2.0**-48


def clear_steps(run: StepRun, epsilon: float) -> int:
    """Return the steps before the first one with a row whose draw is not clear, 0..K.

    Args:
        run: its outputs have been written.
        epsilon: from `tolerance`.
    """
    # What is no number compares as false: the sampler finds out what it is.
    with np.errstate(invalid="ignore", over="ignore"):
        above = run.reached - run.uniforms * run.totals
        below = run.weights - above  # the draw less the sum before the token
        is_clear = np.minimum(above, below) > epsilon * run.totals  # (K, B, 1)
        is_cut_clear = run.cut_margins > epsilon  # (K, 1, 1)
    if is_clear.all() and is_cut_clear.all():
        return len(is_clear)
    return int((is_clear & is_cut_clear).all(axis=(1, 2)).argmin())


def set_options(
    run: StepRun, options: Options, temperature: NDArray[np.float64], vocabulary: int
) -> NDArray[np.int64]:
    """Write the sampling options of rows into the arrays of a run.

    Args:
        run: of so many rows.
        options: of the rows.
        temperature: float64 (B,), as the callers gave it.
        vocabulary: V.

    Returns:
        The greedy rows, whose random numbers are `greedy_uniform`.
    """
    is_greedy = temperature == 0.0
    with np.errstate(divide="ignore", over="ignore"):
        np.minimum(1 / temperature, _GREEDY, out=run.inverse[:, 0])
    run.top_k[:] = vocabulary
    run.top_p[:] = _NO_TOP_P
    if options.cut is not None:
        top_k, top_p = options.top_k, options.top_p
        is_cut = ~is_greedy[options.cut]
        rows = options.cut[is_cut]
        run.top_k[rows, 0] = np.where(top_k > 0, np.minimum(top_k, vocabulary), vocabulary)[is_cut]
        run.top_p[rows, 0] = np.where(top_p < 1.0, top_p, _NO_TOP_P)[is_cut]
        run.has_cuts[()] = len(rows) > 0
    else:
        run.has_cuts[()] = False
    greedy: NDArray[np.int64] = is_greedy.nonzero()[0]
    return greedy


def greedy_uniform(vocabulary: int) -> float:
    """Return the number for which the first of up to V equal weights is drawn, far from its ends."""
    return 0.5 / vocabulary
