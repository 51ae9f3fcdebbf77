"""Says what to do about a check of admission that has failed, by the check and by what it found.

The sentences of the service say what is wrong with a version folder; its maker wants to know what to change.
"""

import re
from typing import NamedTuple

from training.convert.admission import Check

# A difference that is at most so many times the tolerance may be rounding.
_SMALL = 20.0


class _Rule(NamedTuple):
    """Advice for a check whose expectation and finding together match a pattern; {1} is its first group."""

    check: str
    pattern: str
    advice: str


# The first rule that fits counts; the last one of each check fits always.
_RULES = (
    _Rule(
        "spec",
        r"expected [0-9a-f]{64}, found no such file",
        "put {place} back into the folder, or take it out of files in model.json if nothing names it",
    ),
    _Rule(
        "spec",
        r"sha256 of .*: expected [0-9a-f]{64}, found ([0-9a-f]{64})",
        "{place} is not the file that the version was written with: put the right one back; if the "
        "change is meant, set its hash in files of model.json to {1} (sha256sum prints it), and the "
        "golden examples decide whether it is right",
    ),
    _Rule(
        "spec",
        r"tolerance must be at most",
        "a tolerance above a tenth of the largest output would hide a wrong graph: find out why the "
        "graph differs from the original, instead of allowing it",
    ),
    _Rule(
        "spec",
        r"steps, a whole window",
        "golden examples of a network with a window are whole windows: pad or cut them to window.to "
        "steps, or correct window.to",
    ),
    _Rule(
        "spec",
        r"as the folder says",
        "a version lies in <name>/<version>: rename the folder, or correct name and version in model.json",
    ),
    _Rule(
        "spec",
        r"contract: expected",
        "model.json of contract 2 is described in docs/contract.md; this release reads 1 and 2",
    ),
    _Rule(
        "spec",
        r"link that leads out",
        "copy the file into the folder instead of linking it",
    ),
    _Rule(
        "spec",
        r"",
        "correct model.json at that place; docs/contract.md describes every field",
    ),
    _Rule(
        "tokenizer",
        r"no (padding|truncation)",
        "save it without: tokenizer.no_padding(); tokenizer.no_truncation(); "
        "tokenizer.save('tokenizer.json')",
    ),
    _Rule(
        "tokenizer",
        r"tokens, as the network has",
        "tokenizer and network have different vocabularies: take the tokenizer that the network was "
        "trained with, or correct input.size if the embedding has more rows than tokens are used",
    ),
    _Rule(
        "tokenizer",
        r"",
        "save the tokenizer anew in the form that docs/contract.md describes",
    ),
    _Rule(
        "preprocessing",
        r"features of .* for its values",
        "the columns scale otherwise than training did: compare their order, units, mean and scale with"
        " those of the training (StandardScaler: mean_ and scale_; MinMaxScaler: mean = -min_/scale_ "
        "and scale = 1/scale_)",
    ),
    _Rule(
        "preprocessing",
        r"others, \d+ in all",
        "the tokenizer splits the text otherwise than training did: compare lower case, normalization, "
        "words that are added before and behind the text, and the side and value of the window's "
        "padding",
    ),
    _Rule(
        "preprocessing",
        r"a finite number above 0",
        "a column with transform log takes numbers above 0: compare the order of the columns, and what "
        "training did to them, with model.json",
    ),
    _Rule(
        "preprocessing",
        r"",
        "the text or the values of the example cannot be read as its section says: correct the example,"
        " or the vocabulary or columns",
    ),
    _Rule(
        "provider",
        r"",
        "install an onnxruntime with that provider (onnxruntime-gpu for cuda), or check with --provider cpu",
    ),
    _Rule(
        "graph",
        r"custom operator",
        "onnxruntime alone does not know that operator: export the network with ONNX's own operators, "
        "or convert the PyTorch module instead of its file: python -m training convert "
        "package.module:function",
    ),
    _Rule(
        "graph",
        r"external data",
        'put the weights into the graph, and renew its hash: python -c "import onnx; '
        "onnx.save(onnx.load('model.onnx'), 'one.onnx')\"",
    ),
    _Rule(
        "graph",
        r"[Oo]pset|not in opset",
        "export the graph with a lower opset, opset_version=17 for one; the CUDA kernels of recurrent "
        "nodes end at 21",
    ),
    _Rule(
        "graph",
        r"IR version",
        "save it with a lower one: model.ir_version = 10; onnx.save(model, 'model.onnx')",
    ),
    _Rule(
        "graph",
        r"layout 1",
        "let the conversion turn it: python -m training convert FILE; in hand-written graphs, layout 0 "
        "with Transposes",
    ),
    _Rule(
        "graph",
        r"kernel for their types",
        "export float32 weights and int64 tokens: other types, float64 and float16 among them, lack kernels",
    ),
    _Rule(
        "graph",
        r"memory|bad_alloc",
        "give it more memory: SEQSERVE_ADMISSION_BYTES",
    ),
    _Rule(
        "graph",
        r"",
        "export the graph again, or convert the original: python -m training convert FILE",
    ),
    _Rule(
        "placement",
        r"every recurrent node on CUDA",
        "export the graph with opset 17 (CUDA kernels end at 21) and the usual activations, or serve it"
        " on the CPU",
    ),
    _Rule(
        "placement",
        r"a recurrent node",
        "the graph has no recurrence, or it was unrolled to a fixed number of steps: export the "
        "recurrent layers as nn.LSTM, nn.GRU or nn.RNN, or convert the module: python -m training "
        "convert package.module:function",
    ),
    _Rule(
        "placement",
        r"",
        "serve it on the CPU: SEQSERVE_PROVIDER=cpu",
    ),
    _Rule(
        "signature",
        r"axis \d+ fixed at",
        "the export has baked that size in: export with dynamic_axes (torch.onnx.export) for batch and "
        "time, or let the conversion relax it: python -m training convert FILE",
    ),
    _Rule(
        "signature",
        r"input lengths, .*found none",
        "the graph takes no lengths: convert the original, which adds them, or say padding none for a "
        "whole network: python -m training convert FILE",
    ),
    _Rule(
        "signature",
        r"has padding lengths",
        "set padding in model.json to lengths, or leave the input lengths out of the graph",
    ),
    _Rule(
        "signature",
        r"",
        "name the tensors, their types and widths as model.json and docs/contract.md say, or convert "
        "the original: python -m training convert FILE",
    ),
    _Rule(
        "init",
        r"max_steps",
        "the encoder does not run sources that long: lower init.source.max_steps, or export its time "
        "axis as dynamic",
    ),
    _Rule(
        "init",
        r"finite",
        "look for a logarithm or division of zero in the graph, or for initial values in other units "
        "than in training",
    ),
    _Rule(
        "init",
        r"",
        "the init graph takes float32 [1, size] and gives the states that model.json names",
    ),
    _Rule(
        "golden",
        r"(?i)found nan|found inf",
        "the graph computes numbers that are not finite: look for weights that are not numbers, "
        "logarithms and divisions of zero, and features that were not scaled",
    ),
    _Rule(
        "golden",
        r"looks both ways",
        "the outputs change with the cut in time: a bidirectional layer, a pooling over time or a state"
        " that is not carried; convert it, which finds the kind: python -m training convert FILE",
    ),
    _Rule(
        "golden",
        r"behind its length in a chunk",
        "give lengths to every recurrent node as sequence_lens, and compute the head at wanted alone",
    ),
    _Rule(
        "golden",
        r"padding none",
        "what stands behind a sequence's end changes its outputs: mask it by lengths, or set padding to"
        " none, which serves sequences of equal lengths side by side",
    ),
    _Rule(
        "golden",
        r"rows of a batch do not depend",
        "the graph computes a statistic over the batch, such as BatchNorm in training mode: export it "
        "after model.eval()",
    ),
    _Rule(
        "golden",
        r"output of shape",
        "correct pooled in model.json: true for one output a sequence, false for one a time step",
    ),
    _Rule(
        "golden",
        r"onnxruntime failed",
        "the graph fails on a length or number of rows that it was not exported with: a Reshape, Expand"
        " or Slice has a size baked in; let the conversion relax it: python -m training convert FILE",
    ),
    _Rule(
        "golden",
        r", alone, within",
        "graph and golden outputs are not of one network: look for other weights, gates in PyTorch's "
        "order (ONNX has i, o, f, c and z, r, h), linear_before_reset of a GRU (1 for PyTorch), a "
        "softmax too many or too few, a start of the state, or an export before model.eval()",
    ),
    _Rule(
        "golden",
        r"",
        "compare with the original: python -m training check FOLDER --against FILE",
    ),
    _Rule(
        "warm-up",
        r"",
        "the graph fails with many rows side by side: a batch size is baked in, or memory is short; set"
        " SEQSERVE_SLOTS lower to see which",
    ),
    _Rule(
        "generation",
        r"",
        "the generation graph is not of these weights, or was changed: convert or export the model again, or "
        "leave out variants.fp32.generation, which serves the same answers with single steps",
    ),
    _Rule(
        "invariance",
        r"",
        "the graph fails on inputs like the golden ones: input.size may be larger than the embedding "
        "has rows, or an index in the graph runs out for other lengths",
    ),
    _Rule(
        "trial",
        r"no end within that time",
        "give it longer, SEQSERVE_ADMISSION_SECONDS=300, or find the loop in the graph that does not end",
    ),
    _Rule(
        "trial",
        r"memory|bad_alloc|SIGKILL|status -9",
        "give it more memory, SEQSERVE_ADMISSION_BYTES: loading takes three times the size of the graph",
    ),
    _Rule(
        "trial",
        r"",
        "onnxruntime crashed on this graph: export it again, with another opset or exporter",
    ),
)
_OFF = re.compile(r"within (\S+) of .* found (\S+) off")


def advice_on(check: Check) -> str:
    """Return what to do about a check that has failed, one sentence for people."""
    text = f"{check.text}; expected {check.expected}, found {check.found}"
    if check.name == "golden" and (small := _on_small(text)):
        return small
    for rule in _RULES:
        if rule.check == check.name and (match := re.search(rule.pattern, text, re.DOTALL)):
            groups = {str(number): part for number, part in enumerate(match.groups(), 1)}
            return _filled(rule.advice, groups | {"place": check.place or "the file"})
    return "report it with the whole output of this command: the service has no such check"


def _filled(advice: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        advice = advice.replace(f"{{{name}}}", value)
    return advice


def _on_small(text: str) -> str:
    """Return advice for a difference that is a few times the tolerance; empty for any other."""
    match = _OFF.search(text)
    if match is None:
        return ""
    try:
        tolerance, error = float(match[1]), float(match[2])
    except ValueError:
        return ""
    if not tolerance < error <= _SMALL * tolerance:
        return ""
    return (
        f"the difference is {error / tolerance:.1f} times the tolerance, which may be rounding: compute the "
        "golden outputs in float32 on the CPU, or set variants.fp32.tolerance above it if it is small beside "
        "the outputs; weights of another kind (int8) need a tolerance of their own"
    )
