"""Character language model: many to many, each step predicting the next character."""

import math
from pathlib import Path

import torch
from torch import Tensor

from service.contract.spec import Characters, Generation
from training.data.normalization import choose, typeset
from training.data.sources import Source
from training.data.unchanged import take
from training.export.chunks import ChunkCell
from training.export.gate import INT8_KEY, Int8
from training.loop import parallel
from training.loop.fit import build_network, fit
from training.networks.network import RecurrentNetwork, State
from training.recipes.chance import Floats
from training.recipes.mixing import MAX_VOCABULARY, ORDER, mix
from training.recipes.report import Contender, Measure, Results
from training.recipes.run import Outcome, RunOptions, deliver, int8_graph, say
from training.recipes.sizes import sizes_for
from training.recipes.text_corpus import Corpus, read_corpus
from training.recipes.text_losses import (
    CHARACTERS_A_BLOCK,
    NGRAM_TEXT,
    baselines,
    int8_gate,
    losses_of,
    ngram_losses,
    served_losses,
)
from training.recipes.text_objective import NextTokenObjective

MAX_TOKENS = 256
EXAMPLE_LENGTHS = (1, 2, 5, 11, 24, 64)
# What the network writes after each epoch, for the model card.
SAMPLE_LENGTH = 160
SAMPLE_TEMPERATURE = 0.7


def train(options: RunOptions, source: Source, is_mixing: bool = True) -> Path:
    """Train and export a language model over characters.

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
    objective = NextTokenObjective(network, corpus, options.device, options.tuning, sizes.rows)
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


def sample_text(network: RecurrentNetwork, vocabulary: str, start: int, device: str) -> str:
    """Return what the network writes after the start token, the same for the same weights.

    It draws nothing from the generator that training draws from.
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


def start_token(corpus: Corpus) -> int:
    """Return what an empty prompt begins with: a line's end, or the most frequent character of a text without
    lines.
    """
    if "\n" in corpus.vocabulary:
        return corpus.vocabulary.index("\n")
    return int(torch.bincount(corpus.train, minlength=len(corpus.vocabulary)).argmax())


def examples(held_out: Tensor, seed: int) -> list[Tensor]:
    """Return pieces of the held-out part, of several lengths: int64 (T,) each."""
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
    """Measure the loss on the held-out part, beside an n-gram that has counted training and development
    parts; with int8 weights, too, where they are given, and the network alone where it is served mixed.
    """
    config, size = network.config, len(corpus.vocabulary)

    def of(measured: RecurrentNetwork) -> Floats:
        return losses_of(measured, corpus.held_out, device).double().numpy()

    own = {Contender(f"{config.cell} {config.layers} x {config.hidden}", "held_out"): of(network)}
    if int8:
        own[Contender("int8", INT8_KEY)] = served_losses(ChunkCell(int8), corpus.held_out, size)
    if alone is not None and alone is not network:
        own[Contender("without n-gram", "network_alone")] = of(alone)
    counted = torch.cat([corpus.train[-NGRAM_TEXT:], corpus.develop[:NGRAM_TEXT]]).long().numpy()
    contenders = own | baselines(ngram_losses(counted, corpus.held_out, size), size)
    units = tuple(contenders.values())
    losses = tuple(float(one.mean()) for one in units)
    measures = (
        Measure("loss, nats a character", "loss", losses, ".4f", units=units, block=CHARACTERS_A_BLOCK),
        Measure("perplexity", "perplexity", tuple(map(math.exp, losses)), ".2f"),
    )
    return Results(f"last {len(corpus.held_out):,} characters", tuple(contenders), measures)
