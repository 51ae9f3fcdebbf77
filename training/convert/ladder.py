"""Climbs the ladder of conversions: the first rung whose proof holds is taken.

Chunk cell (with an init graph where first states are computed), whole network with lengths, whole network of
equal lengths, or a refusal that says why each rung does not hold. Graphs that take one time step a call have
ways of their own to become chunk cells, see `step`.
"""

from collections.abc import Callable
from pathlib import Path

from service.contract import spec
from training.convert.candidate import Candidate, Reference
from training.convert.converted import Converted
from training.convert.foreign import Foreign, Refused
from training.convert.options import Choices
from training.convert.original.original import Original, declared_steps
from training.convert.original.quantized import refuse_dynamic_quantization
from training.convert.proofs.proving import Proof, prove_chunk, prove_whole
from training.convert.rungs.cell import chunk_cell
from training.convert.rungs.past import described
from training.convert.rungs.whole import whole_network
from training.convert.step.climbing import climb_step
from training.convert.step.reading import is_step

_ADVICE = (
    "export it after model.eval() with the axes of batch and time free (dynamic_axes, or dynamic_shapes with "
    "dynamo=True), or give the class and its weights: package.module:Class --checkpoint FILE"
)

Prove = Callable[[Reference, Candidate, Path], Proof]


def climb(foreign: Foreign, choices: Choices, folder: Path) -> Converted:
    """Convert a network in the best way that is proven.

    Args:
        foreign: the network; the large weights of its graph are moved into a file in `folder`.
        choices: what the user said about it.
        folder: a folder that holds these weights alone; the result needs it as long as its graphs are used.

    Raises:
        Refused: no rung holds.
    """
    refuse_dynamic_quantization(foreign.graph.graph)
    if is_step(foreign, choices):
        return climb_step(foreign, choices, folder)
    original = _opened(foreign, choices, folder)
    rungs: tuple[tuple[str, Callable[[], Candidate], Prove], ...] = (
        ("chunk", lambda: chunk_cell(original), prove_chunk),
        ("whole, lengths", lambda: whole_network(original, "lengths"), prove_whole),
        ("whole, equal lengths", lambda: whole_network(original, "none"), prove_whole),
    )
    rungs = rungs[-1:] if original.is_fixed else rungs
    tried: list[tuple[str, str]] = []
    for rung, make, prove in rungs:
        try:
            candidate = make()
            proof = prove(original, candidate, folder)
        except Refused as error:
            tried.append((rung, error.reason))
            continue
        assumed = (*foreign.assumed, *_served_output(foreign, original, choices))
        return _converted(original, assumed, candidate, proof, tuple(tried))
    reasons = "; ".join(f"{rung}: {reason}" for rung, reason in tried)
    raise Refused(f"no way to serve the network is proven ({reasons})", _ADVICE)


def _opened(foreign: Foreign, choices: Choices, folder: Path) -> Original:
    """Return a network of any number of time steps, or of the one number that a window has."""
    try:
        return Original(foreign, choices, folder)
    except Refused as error:
        steps = choices.window or declared_steps(foreign, choices)
        if steps is None:
            raise
        try:
            original = Original(foreign, choices, folder, steps)
        except Refused:
            raise error from None
        if choices.window is None:
            raise Refused(
                f"the network takes sequences of {steps} time steps alone",
                f"say how others are brought to that length: --window {steps} --pad left or right",
            ) from error
        return original


def _converted(
    original: Original,
    assumed: tuple[str, ...],
    candidate: Candidate,
    proof: Proof,
    tried: tuple[tuple[str, str], ...],
) -> Converted:
    drawing = original.drawing
    fixed = original.lengths if original.is_fixed else None
    return Converted(
        kind=candidate.kind,
        graph=candidate.graph,
        layers=candidate.layers,
        input=drawing.input,
        outputs=candidate.outputs,
        every_step=original.every_step,
        examples=proof.examples,
        comparisons=proof.comparisons,
        init=candidate.init,
        weights_folder=str(original.folder),
        states=candidate.states,
        initial=drawing.initial,
        source=drawing.source,
        padding=candidate.padding,
        pooled=candidate.pooled,
        # Of the window the ladder knows the length alone; the user says the rest.
        window=spec.Window(to=fixed[0], side="right") if fixed else None,
        found=(*_found(original, candidate.layers), *described(candidate.states)),
        assumed=assumed,
        repaired=original.repaired,
        tried=tried,
    )


def _served_output(foreign: Foreign, original: Original, choices: Choices) -> tuple[str, ...]:
    """Return a sentence on the output that is served, where there are several and the user named none."""
    carried = {after for _, after in (*choices.state, *foreign.states)}
    names = [one.name for one in foreign.graph.graph.output if one.name not in carried]
    if choices.output is not None or len(names) < 2:
        return ()
    others = ", ".join(name for name in names if name != original.roles.output)
    served = original.roles.output
    return (f"the output that is served is {served}, and not {others}; --output-name says otherwise",)


def _found(original: Original, layers: tuple[spec.Layer, ...]) -> tuple[str, ...]:
    """Return sentences on what the network is."""
    roles, size = original.roles, original.drawing.input.size
    words = ", ".join(f"{one.kind} {one.width} {one.direction}" for one in layers)
    if not original.all_nodes:
        words = f"a loop, described as {words}, the largest that its weights allow"
    order = "[time, batch]" if original.time_first else "[batch, time]"
    data = f"{size} token ids" if roles.is_tokens else f"{size} features a time step"
    rows = "at every time step" if original.every_step else "of the last time step"
    found = [
        f"layers: {words}",
        f"input {roles.data.name}: {data}, {order}",
        f"output {roles.output}: {original.outputs} numbers {rows}",
    ]
    if original.drawing.skipped_value is not None:
        what = "of token" if roles.is_tokens else "whose features, as the network gets them, are all"
        found.append(
            f"time steps {what} {original.drawing.skipped_value:g} are skipped: they leave the state"
        )
    if roles.lengths is not None:
        found.append(f"lengths of sequences: input {roles.lengths.name}")
    if roles.states:
        found.append(f"states: inputs {', '.join(one.name for one in roles.states)}, which start at zero")
    if roles.extras:
        found.append(f"first states are computed from {', '.join(one.name for one in roles.extras)}")
    return tuple(found)
