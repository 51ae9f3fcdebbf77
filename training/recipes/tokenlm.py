"""Language model over the tokens of a tokenizer: bytes, sub-words or words, each predicting the next.

It is trained as `training.recipes.charlm` trains one over characters, on the same parts of the text. Losses
are reported a character as well as a token, so that tokenizers can be compared with each other and with the
n-gram over characters.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from service.contract.normalizing import Normalizer
from service.contract.spec import Generation, Normalization, TokenizerFile
from training.data import streaming
from training.data.files import iter_lines
from training.data.language_tokenizers import (
    TITLES,
    FileKind,
    chosen_kind,
    language_tokenizer,
    rules_for,
)
from training.data.normalization import typeset
from training.data.sources import Source
from training.data.streaming import Alphabet, blocks, survey
from training.data.subwords import SPACE
from training.data.token_store import Parts, Stretch, blocks_of, store_tokens
from training.data.tokenizing import Tokenizing
from training.data.unchanged import Taken, take
from training.export.chunks import ChunkCell
from training.export.gate import INT8_KEY, Int8
from training.loop import parallel
from training.loop.fit import build_network, fit
from training.networks.network import RecurrentNetwork, State
from training.recipes import charlm
from training.recipes.baselines import witten_bell
from training.recipes.mixing import MAX_VOCABULARY, mix
from training.recipes.report import Contender, Measure, Results
from training.recipes.run import PROMPT_LENGTH, Outcome, RunOptions, deliver, int8_graph, say
from training.recipes.sizes import LONG_TEXT, sizes_for

TOKENIZER_FILE = "tokenizer.json"
# Lengths of the golden examples, in characters.
EXAMPLE_LENGTHS = (1, 2, 5, 11, 24, 64, 160)


@dataclass(frozen=True, slots=True)
class Text:
    """A text, normalized and cut, before it has tokens.

    Attributes:
        parts: by characters, as charlm cuts them.
        alphabet: of the whole text, and the number of its characters.
        trained: the different characters of the training part, sorted.
    """

    parts: Parts
    alphabet: Alphabet
    trained: str

    def characters(self, part: Iterable[Stretch]) -> int:
        """Return the number of characters of a part."""
        return sum(stop - start for _, start, stop in part)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Token ids of a text's parts.

    Attributes:
        tokenizer: that made them.
        train, develop, held_out: integers (N,).
    """

    tokenizer: Tokenizer
    train: Tensor
    develop: Tensor
    held_out: Tensor


def train(options: RunOptions, source: Source, wanted: Tokenizing, is_mixing: bool = True) -> Path:
    """Train and export a language model over the tokens that are wanted; over characters by `charlm`.

    Args:
        options: common to all recipes; sizes of 0 are chosen by how much text there is.
        source: the text.
        wanted: the tokenizer.
        is_mixing: mix the network with an n-gram if that helps on the development part.

    Returns:
        The folder exported to.

    Raises:
        TrainingError: data, options or checkpoint do not fit.
    """
    taken = take(source)
    text = read_text(source)
    kind = chosen_kind(wanted, text.trained)
    taken.check_after_reading()
    say(f"tokenizer: {kind}{' (chosen by auto)' if wanted.choice == 'auto' else ''}")
    if kind == "characters":
        return charlm.train(options, source, is_mixing)
    return _train(options, text, taken, kind, wanted.vocabulary, is_mixing)


def _train(
    options: RunOptions, text: Text, taken: Taken, kind: FileKind, size: int | None, is_mixing: bool
) -> Path:
    corpus = tokenized(text, kind, size, options.folder)
    taken.check_after_reading()
    characters = text.characters(text.parts.train)
    tokens = corpus.tokenizer.get_vocab_size()
    each = characters / len(corpus.train)
    say(f"{tokens:,} different tokens, {TITLES[kind]}; {each:.2f} characters a token")
    sizes = sizes_for(len(corpus.train), options.hidden)
    options = sizes.completed(options)
    shape = options.network(
        vocabulary=tokens,
        embedding=sizes.embedding,
        outputs=tokens,
        dropout=sizes.dropout,
        input_dropout=sizes.input_dropout,
    )
    network = build_network(shape, options.seed, options.device)
    start = start_token(corpus)
    written = max(1, round(charlm.SAMPLE_LENGTH / each))
    fit(
        charlm.CharacterObjective(network, corpus, options.device, options.tuning, sizes.rows),
        options.schedule(sizes.learning_rate),
        options.folder,
        options.resume,
        {"sha256": taken.sha256, "tokenizer": f"{kind}, {tokens}"},
        sample=lambda: sample_text(network, corpus.tokenizer, start, written, options.device),
    )
    parallel.share().dismiss_followers()
    if is_mixing and len(corpus.train) < LONG_TEXT and tokens <= MAX_VOCABULARY:
        mixing = mix(network, corpus.train, corpus.develop)
        say(str(mixing))
        network = mixing.network
    graph = int8_graph(options, network)
    results = evaluate(network, corpus, text, options.device, graph)
    return deliver(options, _outcome(options, text, taken, kind, corpus, network, results, graph))


def _outcome(
    options: RunOptions,
    text: Text,
    taken: Taken,
    kind: FileKind,
    corpus: Corpus,
    network: RecurrentNetwork,
    results: Results,
    graph: bytes | None,
) -> Outcome:
    rules = rules_for(kind, text.trained)
    pieces = examples(text, options.seed)
    count = {name: text.characters(part) for name, part in text.parts._asdict().items()}
    each = count["train"] / len(corpus.train)
    return Outcome(
        network=network,
        section=Generation(
            text=TokenizerFile(kind="tokenizer", file=TOKENIZER_FILE, normalization=rules),
            start_token=start_token(corpus),
            max_tokens=charlm.MAX_TOKENS,
        ),
        examples=[encode(corpus.tokenizer, piece) for piece in pieces],
        texts=[typeset(piece, rules) for piece in pieces],
        results=results,
        taken=taken,
        choices={"recipe": "tokenlm", "tokenizer": kind},
        summary=(
            f"Generates and scores text over {corpus.tokenizer.get_vocab_size():,} tokens: {TITLES[kind]}, "
            f"{each:.2f} characters each in the training part."
        ),
        split=(
            f"By position: the last {count['held_out']:,} characters held out; of those before, "
            f"{count['develop']:,} from the middle picked the epoch, the other {count['train']:,} for "
            "training. The tokenizer comes from the training part alone. Losses by epoch are nats a token."
        ),
        limits=(
            "Knows the style of one text and no facts. Any text has tokens, since what is none of the words, "
            "sub-words or characters is read byte by byte."
        ),
        files={TOKENIZER_FILE: corpus.tokenizer.to_str(pretty=True).encode()},
        int8=Int8(graph, charlm.int8_gate(results.metrics())) if graph else None,
        call=("generate", _prompt(pieces[-1]), "--max-tokens", "200"),
    )


def read_text(source: Source) -> Text:
    """Read and cut the files of a source, as charlm does.

    Raises:
        TrainingError: no text in that encoding, or too short to train and hold out from.
    """
    # The tokenizers of words and sub-words write a space so.
    rules = Normalization(form="NFC", characters={SPACE: "_"})
    normalized = Normalizer(rules).normalized

    def text_of(path: Path | None) -> streaming.Text:
        return lambda: blocks(map(normalized, iter_lines(path, source.encoding))) if path else ()

    text, more = text_of(source.path), text_of(source.more)
    alphabet = survey(text, more)
    charlm.check_text(source, alphabet)
    length, further = alphabet.sizes
    held_out = round(length * (1 - charlm.HELD_OUT_SHARE))
    size = round(held_out * charlm.DEVELOPMENT_SHARE)
    start = (held_out - size) // 2
    parts = Parts(
        train=(
            Stretch(more, 0, further),
            Stretch(text, 0, start),
            Stretch(text, start + size, held_out),
        ),
        develop=(Stretch(text, start, start + size),),
        held_out=(Stretch(text, held_out, length),),
    )
    return Text(parts, alphabet, survey(lambda: blocks_of(parts.train)).vocabulary)


def tokenized(text: Text, kind: FileKind, size: int | None, folder: Path | None) -> Corpus:
    """Make the tokenizer of a text's training part, and encode all parts.

    Args:
        text: whose parts are encoded.
        kind: of the tokenizer.
        size: largest number of tokens; None: by the text.
        folder: of the run, to keep the ids in; None: in memory.
    """
    made = parallel.share().from_leader(
        lambda: language_tokenizer(
            kind, blocks_of(text.parts.train), text.characters(text.parts.train), size
        ).to_str()
    )
    tokenizer = Tokenizer.from_str(made)
    path = folder / charlm.TOKENS_FILE if folder else None
    return Corpus(tokenizer, *store_tokens(tokenizer, text.parts, path))


def encode(tokenizer: Tokenizer, text: str) -> Tensor:
    """Return the token ids of a normalized text: int64 (T,)."""
    return torch.tensor(tokenizer.encode(text).ids)


def start_token(corpus: Corpus) -> int:
    """Return what an empty prompt begins with: a line's end, or the most frequent token of a text without
    lines.
    """
    [*_, line_end] = corpus.tokenizer.encode("\n").ids
    counts = torch.bincount(corpus.train.long(), minlength=corpus.tokenizer.get_vocab_size())
    return int(line_end) if counts[line_end] else int(counts.argmax())


def sample_text(network: RecurrentNetwork, tokenizer: Tokenizer, start: int, count: int, device: str) -> str:
    """Return the text of `count` tokens that the network writes after the start token, the same for the same
    weights; nothing is drawn from the generator that training draws from.
    """
    generator = torch.Generator().manual_seed(0)
    state: State | None = None
    written = [start]
    with torch.no_grad():
        for _ in range(count):
            hidden, state = network(torch.tensor([written[-1:]], device=device), state=state)
            logits = network.outputs_of(hidden)[0, 0].float().cpu() / charlm.SAMPLE_TEMPERATURE
            written.append(int(torch.multinomial(logits.softmax(dim=0), 1, generator=generator)))
    text: str = tokenizer.decode(written[1:], skip_special_tokens=False)
    return text


def examples(text: Text, seed: int) -> list[str]:
    """Return pieces of the held-out part of several lengths, from its first characters."""
    held = ""
    for block in blocks_of(text.parts.held_out):
        held += block
        if len(held) >= charlm.STRETCH:
            break
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    for length in EXAMPLE_LENGTHS:
        if length <= len(held):
            start = int(torch.randint(len(held) - length + 1, (), generator=generator))
            pieces.append(held[start : start + length])
    return pieces


def _prompt(piece: str) -> str:
    """Return the beginning of a piece's longest line."""
    line = max(piece.split("\n"), key=len).strip()[:PROMPT_LENGTH]
    return line if line.isprintable() else ""


def evaluate(
    network: RecurrentNetwork, corpus: Corpus, text: Text, device: str, int8: bytes | None = None
) -> Results:
    """Measure the loss on the held-out part, beside charlm's n-gram over characters; with int8 weights, too,
    where they are given.
    """
    kind = network.config
    tokens = {
        Contender(f"{kind.cell} {kind.layers} x {kind.hidden}", "held_out"): charlm.mean_loss(
            network, corpus.held_out, device
        )
    }
    if int8:
        tokens[Contender("int8", INT8_KEY)] = charlm.served_loss(ChunkCell(int8), corpus.held_out)
    # The first token is given, so that its characters cost nothing.
    given = max(1, len(corpus.tokenizer.decode(corpus.held_out[:1].tolist())))
    characters = text.characters(text.parts.held_out)
    ratio = (len(corpus.held_out) - 1) / (characters - given)
    losses = {contender: loss * ratio for contender, loss in tokens.items()} | {
        Contender(f"{charlm.NGRAM}-gram, Witten-Bell", f"baseline_{charlm.NGRAM}gram"): ngram_loss(text),
        Contender("uniform", "baseline_uniform"): math.log(len(text.alphabet.vocabulary)),
    }
    values = tuple(losses.values())
    measures = (
        Measure("loss, nats a character", "loss", values, ".4f"),
        Measure("loss, nats a token", "token_loss", tuple(map(tokens.get, losses)), ".4f"),
        Measure("perplexity a character", "perplexity", tuple(map(math.exp, values)), ".2f"),
    )
    return Results(f"last {characters:,} characters", tuple(losses), measures)


def ngram_loss(text: Text) -> float:
    """Return the loss of charlm's n-gram on the held-out part, in nats a character, as charlm counts and
    measures it: of a long text it counts the last part.
    """
    alphabet = text.alphabet.vocabulary
    counted = np.concatenate(
        [
            _tail(text.parts.train, alphabet, charlm.NGRAM_TEXT),
            _tail(text.parts.develop, alphabet, charlm.NGRAM_TEXT),
        ]
    )
    held_out = _tail(text.parts.held_out, alphabet, text.characters(text.parts.held_out))
    probability = np.concatenate(
        [
            witten_bell(counted, held_out[start : start + charlm.STRETCH], len(alphabet), charlm.NGRAM)
            for start in range(0, len(held_out), charlm.STRETCH)
        ]
    )
    return -float(np.log(probability[1:]).mean())


def _tail(part: Iterable[Stretch], alphabet: str, size: int) -> NDArray[np.int64]:
    """Return the places in an alphabet of the last `size` characters of a part."""
    order = np.array([ord(one) for one in alphabet], np.uint32)
    kept: list[NDArray[np.uint32]] = []
    length = 0
    for block in blocks_of(part):
        kept.append(np.frombuffer(block.encode("utf-32-le", "surrogatepass"), np.uint32))
        length += len(block)
        while length - len(kept[0]) >= size:
            length -= len(kept.pop(0))
    codes = np.concatenate([np.zeros(0, np.uint32), *kept])[-size:]
    return np.searchsorted(order, codes).astype(np.int64)
