"""Modules become graphs that equal them at any batch and length, and stay as they were."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.training.convert.pytorch.networks import (
    FEATURES,
    VOCABULARY,
    WIDTH,
    Network,
    Packed,
    PackedAnyOrder,
    WithState,
    session_of,
)
from training.convert.foreign import Foreign, Refused
from training.convert.original.repairs import relax
from training.convert.pytorch import read_module

TOLERANCE = 2e-5


def sequences(network: Network, batch: int, steps: int) -> Tensor:
    shape = (batch, steps) if network.batch_first else (steps, batch)
    if network.embedding is not None:
        return torch.randint(0, VOCABULARY, shape)
    return torch.randn(*shape, FEATURES)


def assert_equal(module: nn.Module, foreign: Foreign, *arguments: Tensor) -> None:
    """The graph's only output is the module's."""
    session = session_of(foreign)
    names = [one.name for one in session.get_inputs()]
    with torch.no_grad():
        expected = module.eval()(*arguments).numpy()
    feeds = {name: one.numpy() for name, one in zip(names, arguments, strict=True)}
    (found,) = session.run(None, feeds)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE


kinds = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(["LSTM", "GRU", "RNN"]),
        "batch_first": st.booleans(),
        "layers": st.integers(1, 2),
        "both": st.booleans(),
        "tokens": st.booleans(),
        "last": st.sampled_from(["every", "last", "hidden", "attention"]),
        "norm": st.booleans(),
    }
)


@settings(max_examples=12)
@given(kinds, st.integers(0, 1000), st.integers(1, 4), st.integers(1, 25))
def test_graph_of_a_random_module_equals_it(
    kind: dict[str, object], seed: int, batch: int, steps: int
) -> None:
    torch.manual_seed(seed)
    network = Network(**kind)  # type: ignore[arg-type]
    foreign = read_module(network, sequences(network, 2, 6))
    assert_equal(network, foreign, sequences(network, batch, steps))
    assert foreign.vocabulary == (VOCABULARY if kind["tokens"] else None)


@settings(max_examples=8)
@given(
    st.sampled_from([Packed, PackedAnyOrder]),
    st.sampled_from(["LSTM", "GRU", "RNN"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["every", "hidden"]),
    st.integers(0, 1000),
)
def test_graph_of_a_packed_module_honours_lengths(
    made: type[Packed], cell: str, batch_first: bool, both: bool, last: str, seed: int
) -> None:
    torch.manual_seed(seed)
    network = made(cell, batch_first=batch_first, both=both, last=last)  # type: ignore[arg-type]
    foreign = read_module(network, (sequences(network, 2, 6), torch.tensor([6, 4])))
    assert [one.name for one in foreign.graph.graph.input] == ["x", "lengths"]
    assert_equal(network, foreign, sequences(network, 3, 9), torch.tensor([9, 7, 2]))


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_states_are_named_inputs_and_outputs(cell: str) -> None:
    module = WithState(cell)  # type: ignore[arg-type]
    state = torch.zeros(2, 2, WIDTH)
    given_state = (state, state.clone()) if cell == "LSTM" else state
    foreign = read_module(module, {"x": torch.randn(2, 7, FEATURES), "state": given_state})
    names = [one.name for one in foreign.graph.graph.input]
    outputs = [one.name for one in foreign.graph.graph.output]
    if cell == "LSTM":
        assert names == ["x", "state.0", "state.1"]
        assert outputs == ["output.0", "output.1.0", "output.1.1"]
    else:
        assert names == ["x", "state"]
        assert outputs == ["output.0", "output.1"]


def test_oracle_is_the_module_alone_in_eval_mode() -> None:
    network = Network(layers=2)
    network.recurrent.dropout = 0.5
    network.train()
    foreign = read_module(network)
    tokens = np.arange(9).reshape(1, 9)
    assert foreign.oracle is not None
    (found,) = foreign.oracle({"x": tokens})
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(tokens))
    assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Network(), "tokens below 20, as the Embedding 'embedding' takes them"),
        (Network(tokens=False), "6 features a time step, as the LSTM 'recurrent' takes them"),
        (Packed(tokens=False), "beside it lengths by name"),
        (Packed(batch_first=False), "as the Embedding 'embedding' takes them, time first; beside it lengths"),
        (WithState(), "beside it state.0, state.1 by name"),
        (nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), "4 features a time step, as the Linear '0'"),
    ],
    ids=["tokens", "features", "lengths", "lengths, time first", "states", "another layer first"],
)
def test_example_inputs_are_derived_and_said(module: nn.Module, said: str) -> None:
    assert said in " ".join(read_module(module).assumed)


class Stateful(nn.Module):
    """Keeps its last state and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(FEATURES, WIDTH, batch_first=True, dropout=0.0)
        self.dropout = nn.Dropout(0.5)
        self.state: Tensor | None = None
        self.lengths: list[int] = []
        self.count: Tensor
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.lengths.append(x.shape[1])
        y, self.state = self.recurrent(x, self.state)
        answer: Tensor = self.dropout(y)
        return answer


def test_module_stays_as_it_was() -> None:
    module = Stateful()
    module.recurrent.eval()
    calls: list[int] = []
    handle = module.recurrent.register_forward_hook(lambda *_: calls.append(1))
    before = {name: one.clone() for name, one in module.state_dict().items()}
    random = torch.get_rng_state()
    read_module(module, torch.randn(2, 7, FEATURES, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), random)
    assert (module.training, module.recurrent.training, module.dropout.training) == (True, False, True)
    assert module.state is None
    assert module.lengths == []
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())
    assert all(one.requires_grad for one in module.parameters())
    handle.remove()
    calls.clear()
    module(torch.randn(1, 2, FEATURES))
    assert calls == []


@pytest.mark.parametrize("kind", [torch.float64, torch.float16], ids=str)
def test_other_precisions_are_converted_in_a_copy(kind: torch.dtype) -> None:
    network = Network().to(kind)
    foreign = read_module(network)
    assert f"converted from {str(kind).removeprefix('torch.')} to float32" in foreign.assumed[0]
    assert {one.dtype for one in network.parameters()} == {kind}
    assert_equal(network.float(), foreign, sequences(network, 2, 9))


class Attention(nn.Module):
    """Attention over its own sequence, with or without masks."""

    def __init__(self, mask: str = "", *, batch_first: bool = True, encoder: bool = False) -> None:
        super().__init__()
        self.mask, self.batch_first = mask, batch_first
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.recurrent = nn.LSTM(8, 8, batch_first=batch_first)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=batch_first, bias=not mask)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first) if encoder else None

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.recurrent(self.embedding(x))
        if self.encoder is not None:
            encoded: Tensor = self.encoder(y)
            return encoded
        steps = x.shape[1 if self.batch_first else 0]
        after = torch.triu(torch.ones(steps, steps, dtype=torch.bool), 1) if self.mask == "causal" else None
        padded = (x == 0).logical_and(x.cumsum(1) > 0) if self.mask == "padding" else None
        answer, weights = self.attention(y, y, y, attn_mask=after, key_padding_mask=padded)
        assert weights is not None
        attended: Tensor = answer + weights.sum() * 0
        return attended


@pytest.mark.parametrize(
    "module",
    [
        Attention(),
        Attention(batch_first=False),
        Attention("causal"),
        Attention("padding"),
        Attention(encoder=True),
        Attention(encoder=True, batch_first=False),
    ],
    ids=["plain", "time first", "causal", "padding", "encoder layer", "encoder layer, time first"],
)
def test_attention_over_the_own_sequence_keeps_its_length_free(module: Attention) -> None:
    foreign = read_module(module)
    assert "forward" not in vars(module.attention)
    tokens = torch.randint(0, VOCABULARY, (3, 13) if module.batch_first else (13, 3))
    assert_equal(module, foreign, tokens)


class PythonSizes(nn.Module):
    """Computes with sizes as Python numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(FEATURES, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.recurrent(x, torch.zeros(1, len(x), WIDTH))
        answer: Tensor = y.reshape(len(x), int(x.shape[1]), WIDTH)
        return answer


def test_sizes_that_were_python_numbers_are_freed_by_repairs() -> None:
    module = PythonSizes()
    foreign = read_module(module)
    assert foreign.source.exporter == "torch.onnx with TorchScript at fixed sizes"
    relaxed, done = relax(foreign.graph)
    assert done
    assert_equal(module, replace(foreign, graph=relaxed), torch.randn(3, 11, FEATURES))


class Tagger(nn.Module):
    """Takes one sequence, without an axis for the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, FEATURES)
        self.recurrent = nn.LSTM(FEATURES, WIDTH)

    def forward(self, sentence: Tensor) -> Tensor:
        y, _ = self.recurrent(self.embedding(sentence).view(len(sentence), 1, -1))
        answer: Tensor = y.view(len(sentence), -1)
        return answer


class Window(nn.Module):
    """Takes one length alone."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(FEATURES, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH * 9, 2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.recurrent(x)[0].flatten(1))
        return answer


def test_one_length_alone_is_said() -> None:
    foreign = read_module(Window(), torch.randn(2, 9, FEATURES))
    assert "the module takes sequences of 9 time steps alone" in foreign.assumed


class Normed(nn.Module):
    """RMSNorm, which the TorchScript exporter does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, WIDTH)
        self.norm = nn.RMSNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.norm(self.first(x))
        return answer


def test_other_exporter_is_tried_where_the_first_fails(capfd: pytest.CaptureFixture[str]) -> None:
    module = Normed()
    foreign = read_module(module)
    assert "torch.export" in foreign.source.exporter
    assert_equal(module, foreign, torch.randn(3, 11, FEATURES))
    assert capfd.readouterr() == ("", "")


class Unrolled(nn.Module):
    """A recurrence written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.given, self.kept = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[0], WIDTH)
        for step in range(x.shape[1]):
            state = torch.tanh(self.given(x[:, step]) + self.kept(state))
        return state


class Random(Network):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


class ChannelsFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(FEATURES, WIDTH, 3, padding=1)
        self.recurrent = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.recurrent(self.convolution(x).transpose(1, 2))[0]
        return answer


class Univariate(nn.Module):
    """Adds the axis of features itself."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(1, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.recurrent(x.unsqueeze(-1))[0]
        return answer


class OneHot(nn.Module):
    """Encodes ids without an Embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(VOCABULARY, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.recurrent(nn.functional.one_hot(x, VOCABULARY).float())[0]
        return answer


def test_ids_without_an_embedding_are_counted_by_trial() -> None:
    module = OneHot()
    foreign = read_module(module, torch.zeros(2, 7, dtype=torch.long))
    assert foreign.vocabulary == VOCABULARY
    assert f"token ids below {VOCABULARY}, found by trial" in foreign.assumed
    assert_equal(module, foreign, torch.randint(0, VOCABULARY, (3, 5)))


class FromImage(nn.Module):
    """Its first state is computed from another input, which stands before the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.embedding = nn.Linear(4, WIDTH), nn.Embedding(VOCABULARY, FEATURES)
        self.recurrent = nn.GRU(FEATURES, WIDTH, batch_first=True)

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        answer: Tensor = self.recurrent(self.embedding(tokens), self.first(image).unsqueeze(0))[0]
        return answer


def test_sequence_is_found_behind_another_input() -> None:
    module = FromImage()
    foreign = read_module(module, (torch.randn(2, 4), torch.zeros(2, 7, dtype=torch.long)))
    assert foreign.assumed == ()
    assert_equal(module, foreign, torch.randn(3, 4), torch.randint(0, VOCABULARY, (3, 11)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_script_module_is_refused() -> None:
    scripted = torch.jit.script(nn.GRU(FEATURES, WIDTH))
    for module, name in ((scripted, "at the top"), (nn.Sequential(scripted), "'0'")):
        with pytest.raises(Refused, match=rf"module {name}: expected an nn\.Module, found a ScriptModule"):
            read_module(module)


@pytest.mark.parametrize(
    ("module", "examples", "reason"),
    [
        (Unrolled(), None, "with TorchScript, .* with torch.export, .* a loop over time in Python unrolls"),
        (Random(), None, "expected the same answer to the same inputs"),
        (Tagger(), None, "found one sequence without an axis for the batch"),
        (nn.LSTM(4, 5, proj_size=2), None, "expected an LSTM without projection, found proj_size 2"),
        (ChannelsFirst(), torch.randn(2, FEATURES, 7), r"found \[batch, channels, time\]"),
        (Network(), torch.randn(2, 7, FEATURES), "expected an answer to x .2, 7, 6., found RuntimeError"),
        (Network(), (torch.zeros(1), 2, 3), "expected the arguments of Network.forward"),
        (Network(), {"y": torch.zeros(1)}, "expected the arguments of Network.forward"),
        (Network(), (7,), "expected at least one tensor"),
        (
            Packed(),
            (torch.zeros(2, 7, dtype=torch.long), [7, 3]),
            "expected lengths as a tensor, found a list",
        ),
        (Univariate(), torch.randn(2, 7), "found numbers without an axis for the features"),
        (nn.ReLU(), None, "no Embedding, recurrent or Linear layer in ReLU"),
        (nn.LazyLinear(3), None, "found a lazy layer"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_what_cannot_be_served_is_refused(module: nn.Module, examples: object, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        read_module(module, examples)  # type: ignore[arg-type]
