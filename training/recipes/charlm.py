"""Character language model: many to many, each step predicting the next character.

The text is cut into parallel streams and read in pieces of `STEPS` characters, the state carried from piece
to piece and only gradients cut (truncated back-propagation through time, Williams & Peng 1990).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from seqserve.tables.files import UTF8
from service.contract.normalizing import Normalizer
from service.contract.spec import Characters, Generation
from training.data.files import iter_lines, read_whole
from training.data.normalization import COMPOSED, choose, typeset
from training.data.sources import Source
from training.data.streaming import Alphabet, Section, Text, blocks, store, survey
from training.data.unchanged import take
from training.errors import TrainingError
from training.export.chunks import SERVED_ROWS, ChunkCell
from training.export.gate import INT8_KEY, Gate, Int8
from training.loop import parallel
from training.loop.fit import build_network, fit
from training.loop.tuning import Tuning
from training.networks.network import RecurrentNetwork, State
from training.recipes.baselines import witten_bell
from training.recipes.mixing import MAX_VOCABULARY, ORDER, mix
from training.recipes.report import Contender, Measure, Results
from training.recipes.run import Outcome, RunOptions, deliver, int8_graph, say
from training.recipes.sizes import LONG_TEXT, ROWS, STEPS, sizes_for

HELD_OUT_SHARE = 0.1
DEVELOPMENT_SHARE = 0.03
FEWEST_CHARACTERS = 1000
NGRAM = ORDER
# Characters that the n-gram counts at most, and those of the held-out part that it, and a graph as it is
# served, are asked about at once.
NGRAM_TEXT = 5_000_000
STRETCH = 1_000_000
# Losses of neighbouring characters are alike; chance is judged by blocks of so many.
CHARACTERS_A_BLOCK = 1000
SERVED_STRETCH = 1 << 17
TOKENS_FILE = "tokens.bin"
MAX_TOKENS = 256
EXAMPLE_LENGTHS = (1, 2, 5, 11, 24, 64)
# Characters that a row reads before those that count, where rows read one text side by side: after them, the
# plays' loss is that of one row which reads everything, within 1e-5 nats.
LEAD = 256
INT8_COST = 0.01
# What the network writes after each epoch, for the model card.
SAMPLE_LENGTH = 160
SAMPLE_TEMPERATURE = 0.7


@dataclass(frozen=True, slots=True)
class Corpus:
    """A text as token ids, cut by position: training, development (picks the epoch), held out (reported).

    Attributes:
        vocabulary: the characters, sorted; a character's index is its token id.
        train, develop, held_out: (N,), of the smallest integers that hold the ids.
    """

    vocabulary: str
    train: Tensor
    develop: Tensor
    held_out: Tensor

    @property
    def is_long(self) -> bool:
        """Whether it is more than a network of ours can learn by heart."""
        return len(self.train) >= LONG_TEXT


def train(options: RunOptions, source: Source, is_mixing: bool = True) -> Path:
    """The whole recipe.

    Args:
        options: common to all recipes; sizes of 0 are chosen by how much text there is.
        source: the text.
        is_mixing: mix the network with an n-gram if that helps on the development part.
    Returns:
        The folder exported to.
    Raises:
        TrainingError: data, options or checkpoint do not fit.
    """
    taken = take(source)
    corpus = read_corpus(source, options.folder)
    taken.check_after_reading()
    size = len(corpus.vocabulary)
    sizes = sizes_for(len(corpus.train), options.hidden)
    options = sizes.completed(options)
    shape = options.network(
        vocabulary=size,
        embedding=sizes.embedding,
        outputs=size,
        dropout=sizes.dropout,
        input_dropout=sizes.input_dropout,
    )
    network = build_network(shape, options.seed, options.device)
    objective = CharacterObjective(network, corpus, options.device, options.tuning, sizes.rows)
    start = start_token(corpus)
    fit(
        objective,
        options.schedule(sizes.learning_rate),
        options.folder,
        options.resume,
        {"sha256": taken.sha256},
        sample=lambda: sample_text(network, corpus.vocabulary, start, options.device),
    )
    parallel.share().dismiss_followers()
    alone, mixing = network, None
    if is_mixing and not corpus.is_long and size <= MAX_VOCABULARY:
        mixing = mix(network, corpus.train, corpus.develop)
        say(str(mixing))
        network = mixing.network
    graph = int8_graph(options, network)
    results = evaluate(network, corpus, options.device, graph, alone)
    rules = choose(corpus.vocabulary, corpus.vocabulary)
    golden = examples(corpus.held_out, options.seed)
    outcome = Outcome(
        network=network,
        section=Generation(
            text=Characters(kind="characters", vocabulary=corpus.vocabulary, normalization=rules),
            start_token=start,
            max_tokens=MAX_TOKENS,
        ),
        examples=golden,
        texts=[
            typeset("".join(corpus.vocabulary[token] for token in example.tolist()), rules)
            for example in golden
        ],
        results=results,
        taken=taken,
        choices={"recipe": "charlm"},
        summary=f"Generates and scores text, character by character, over {size} different characters."
        + (f" Its distribution is mixed with a {ORDER}-gram's." if alone is not network else ""),
        split=(
            f"By position: the last {len(corpus.held_out):,} characters held out; "
            f"of those before, {len(corpus.develop):,} from the middle "
            f"picked the epoch, the other {len(corpus.train):,} for training."
            + (f" What the development part says, {mixing}." if mixing else "")
        ),
        limits=(
            "Knows the style of one text and no facts; characters outside its vocabulary are refused, "
            "but for typographic ones, which are read as plain ones."
        ),
        int8=Int8(graph, int8_gate(results.metrics())) if graph else None,
    )
    return deliver(options, outcome)


def read_corpus(source: Source, folder: Path) -> Corpus:
    """The files of a source, their ids kept in a file in the run's folder.

    Raises:
        TrainingError: no text in that encoding, or too short to train and hold out from.
    """

    composed = Normalizer(COMPOSED).normalized

    def text_of(path: Path | None) -> Text:
        return lambda: blocks(map(composed, iter_lines(path, source.encoding))) if path else ()

    text, more = text_of(source.path), text_of(source.more)
    alphabet = survey(text, more)
    check_text(source, alphabet)
    return _cut(text, more, alphabet, folder / TOKENS_FILE)


def check_text(source: Source, alphabet: Alphabet) -> None:
    """Check that there is enough text to train on and to hold out from.

    Raises:
        TrainingError: there is not.
    """
    if alphabet.sizes[0] < FEWEST_CHARACTERS:
        raise TrainingError(
            f"{source.path}: expected at least {FEWEST_CHARACTERS} characters, found {alphabet.sizes[0]}"
        )
    if source.more and not alphabet.sizes[1]:
        raise TrainingError(f"{source.more}: expected text to train on, found none")
    if len(alphabet.vocabulary) < 2:
        raise TrainingError(
            f"{source.path}: expected two or more different characters, found {alphabet.vocabulary!r} alone"
        )


def read_text(path: Path, encoding: str = UTF8) -> str:
    """A text file.

    Raises:
        TrainingError: no text in that encoding.
    """
    return read_whole(path, encoding)


def split(text: str, more: str = "") -> Corpus:
    """The last tenth is held out; the development part is cut from the middle of the rest.

    Not from its end: in a text of several works, what comes just before the held-out part introduces the
    names that it goes on with.

    Args:
        text: cut into the three parts.
        more: trained on, too.
    """
    texts = (lambda: [text]), (lambda: [more])
    return _cut(*texts, survey(*texts), None)


def _cut(text: Text, more: Text, alphabet: Alphabet, path: Path | None) -> Corpus:
    """Ids in the order of training part, development part, held-out part."""
    length, further = alphabet.sizes
    held_out = round(length * (1 - HELD_OUT_SHARE))
    size = round(held_out * DEVELOPMENT_SHARE)
    start = (held_out - size) // 2
    train = further + held_out - size
    sections = [
        Section(0, start, further),
        Section(start, start + size, train),
        Section(start + size, held_out, further + start),
        Section(held_out, length, further + held_out),
    ]
    ids = store(alphabet, [(text, sections), (more, [Section(0, further, 0)])], path)
    return Corpus(alphabet.vocabulary, ids[:train], ids[train : train + size], ids[train + size :])


class Ids(Protocol):
    """Token ids that are trained on, and those that pick the epoch: integers (N,)."""

    @property
    def train(self) -> Tensor:
        """Return the ids that are trained on."""
        ...

    @property
    def develop(self) -> Tensor:
        """Return the ids that pick the epoch."""
        ...


class CharacterObjective:
    """Next-token cross-entropy over parallel streams of the training part."""

    def __init__(
        self,
        network: RecurrentNetwork,
        corpus: Ids,
        device: str,
        tuning: Tuning = Tuning(),
        rows: int = ROWS,
    ) -> None:
        self.network = network
        self.device = device
        self.develop_part = corpus.develop
        self.train_part = corpus.train
        longest = max(1, len(corpus.train) // (4 * STEPS))
        self.rows = tuning.batch_or(min(rows, longest), longest)
        self.width = (len(corpus.train) - 1) // self.rows
        self.steps_per_epoch = -(-self.width // STEPS)

    def streams(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, (rows, width) each: the text as a ring, cut at a random place into streams side
        by side.
        """
        ring = torch.roll(self.train_part, int(torch.randint(len(self.train_part), ())))
        size = self.rows * self.width
        return ring[:size].view(self.rows, self.width), ring[1 : size + 1].view(self.rows, self.width)

    def losses(self, epoch: int) -> Iterator[Tensor]:  # noqa: ARG002 - the loop has set the epoch's seed
        """The streams from front to back, cut anew in each epoch."""
        all_inputs, all_targets = self.streams()
        share = parallel.share()
        share.part_ways()
        part = share.part(self.rows)
        state: State | None = None
        for start in range(0, self.width, STEPS):
            inputs = all_inputs[part.rows, start : start + STEPS].to(self.device, torch.long)
            targets = all_targets[part.rows, start : start + STEPS].to(self.device, torch.long)
            hidden, after = self.network(inputs, state=state)
            state = [tensor.detach().float() for tensor in after]
            yield part.weight * cross_entropy(
                self.network.outputs_of(hidden).flatten(0, 1), targets.flatten()
            )

    def develop(self) -> float:
        """Nats a character over the development part."""
        return mean_loss(self.network, self.develop_part, self.device)


def mean_loss(network: RecurrentNetwork, ids: Tensor, device: str, piece: int = 2000) -> float:
    """Return the mean of `losses_of`."""
    return float(losses_of(network, ids, device, piece).double().mean())


def losses_of(network: RecurrentNetwork, ids: Tensor, device: str, piece: int = 2000) -> Tensor:
    """Return the nats of each of characters 2..N given those before: float32 (N - 1,), on the CPU.

    The state is carried from the first character to the last.
    """
    state: State | None = None
    found = []
    with torch.no_grad():
        for start in range(0, len(ids) - 1, piece):
            inputs = ids[start : min(start + piece, len(ids) - 1)].to(device, torch.long)
            targets = ids[start + 1 : start + 1 + len(inputs)].to(device, torch.long)
            hidden, state = network(inputs[None], state=state)
            found.append(cross_entropy(network.outputs_of(hidden)[0], targets, reduction="none").cpu())
    return torch.cat(found)


def sample_text(network: RecurrentNetwork, vocabulary: str, start: int, device: str) -> str:
    """What the network writes after the start token, the same for the same weights; it draws nothing from the
    generator that training draws from.
    """
    generator = torch.Generator().manual_seed(0)
    state: State | None = None
    token, written = start, ""
    with torch.no_grad():
        for _ in range(SAMPLE_LENGTH):
            hidden, state = network(torch.tensor([[token]], device=device), state=state)
            probabilities = (network.outputs_of(hidden)[0, 0].float().cpu() / SAMPLE_TEMPERATURE).softmax(
                dim=0
            )
            token = int(torch.multinomial(probabilities, 1, generator=generator))
            written += vocabulary[token]
    return written


def served_loss(cell: ChunkCell, ids: Tensor) -> float:
    """Return the mean of `served_losses_of`."""
    return float(served_losses_of(cell, ids).mean())


def served_losses_of(cell: ChunkCell, ids: Tensor) -> NDArray[np.float64]:
    """Return `losses_of` of a graph as it is served; a long text in stretches, each from a zero state."""
    losses = [
        served_losses(cell, ids[start : start + SERVED_STRETCH + 1])
        for start in range(0, len(ids) - 1, SERVED_STRETCH)
    ]
    return torch.cat(losses).numpy()


def served_losses(cell: ChunkCell, ids: Tensor) -> Tensor:
    """Nats of each of characters 2..N: float64 (N - 1,). The text is cut into rows side by side, each with a
    lead of what comes before it.
    """
    text = ids.numpy().astype(np.int64)
    size = len(text) - 1
    rows = min(SERVED_ROWS, max(1, size // LEAD))
    starts = [size * row // rows for row in range(rows + 1)]
    leads = [min(LEAD, start) for start in starts[:-1]]
    inputs = [text[start - lead : end] for lead, (start, end) in zip(leads, pairwise(starts), strict=True)]
    logits = torch.from_numpy(
        np.concatenate([outputs[lead:] for lead, outputs in zip(leads, cell.served(inputs), strict=True)])
    )
    return cross_entropy(logits.double(), ids[1:].long(), reduction="none")


def int8_gate(metrics: Mapping[str, float]) -> Gate:
    """What int8 weights may add to the held-out loss."""
    cost = metrics[f"{INT8_KEY}_loss"] - metrics["held_out_loss"]
    return Gate("held-out loss above that of fp32, nats a character", INT8_COST, cost)


def start_token(corpus: Corpus) -> int:
    """What an empty prompt begins with: a line's end, or the most frequent character of a text without
    lines.
    """
    if "\n" in corpus.vocabulary:
        return corpus.vocabulary.index("\n")
    return int(torch.bincount(corpus.train, minlength=len(corpus.vocabulary)).argmax())


def examples(held_out: Tensor, seed: int) -> list[Tensor]:
    """Pieces of the held-out part, of several lengths: int64 (T,) each."""
    generator = torch.Generator().manual_seed(seed)
    starts = [
        int(torch.randint(len(held_out) - length + 1, (), generator=generator)) for length in EXAMPLE_LENGTHS
    ]
    return [
        held_out[start : start + length].long() for start, length in zip(starts, EXAMPLE_LENGTHS, strict=True)
    ]


def evaluate(
    network: RecurrentNetwork,
    corpus: Corpus,
    device: str,
    int8: bytes | None = None,
    alone: RecurrentNetwork | None = None,
) -> Results:
    """Loss on the held-out part, beside an n-gram that has counted training and development parts; with int8
    weights, too, where they are given, and the network alone where it is served mixed.

    Of a long text the n-gram counts the last part, and is asked about the held-out part in stretches: its
    tables take a hundred bytes a character.
    """
    own_losses = losses_of(network, corpus.held_out, device).double().numpy()
    own = {
        Contender(
            f"{network.config.cell} {network.config.layers} x {network.config.hidden}", "held_out"
        ): own_losses
    }
    if int8:
        own[Contender("int8", INT8_KEY)] = served_losses_of(ChunkCell(int8), corpus.held_out)
    if alone is not None and alone is not network:
        alone_losses = losses_of(alone, corpus.held_out, device).double().numpy()
        own[Contender("without n-gram", "network_alone")] = alone_losses
    counted = torch.cat([corpus.train[-NGRAM_TEXT:], corpus.develop[:NGRAM_TEXT]]).long().numpy()
    stretches = (
        corpus.held_out[start : start + STRETCH].long().numpy()
        for start in range(0, len(corpus.held_out), STRETCH)
    )
    probability = np.concatenate(
        [witten_bell(counted, stretch, len(corpus.vocabulary), NGRAM) for stretch in stretches]
    )
    # Characters 2..N, as losses_of has it.
    ngram_losses = -np.log(probability[1:])
    uniform = np.full(len(ngram_losses), math.log(len(corpus.vocabulary)))
    contenders = own | {
        Contender(f"{NGRAM}-gram, Witten-Bell", f"baseline_{NGRAM}gram"): ngram_losses,
        Contender("uniform", "baseline_uniform"): uniform,
    }
    units = tuple(contenders.values())
    losses = tuple(float(one.mean()) for one in units)
    measures = (
        Measure("loss, nats a character", "loss", losses, ".4f", units=units, block=CHARACTERS_A_BLOCK),
        Measure("perplexity", "perplexity", tuple(map(math.exp, losses)), ".2f"),
    )
    return Results(f"last {len(corpus.held_out):,} characters", tuple(contenders), measures)
