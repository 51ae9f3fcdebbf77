"""Language model over the tokens of a tokenizer: bytes, sub-words or words, each predicting the next.

It is trained as `training.recipes.charlm` trains one over characters, on the same parts of the text. Losses
are reported a character as well as a token, so that tokenizers can be compared with each other and with the
n-gram over characters.
"""

import math
from pathlib import Path

import torch
from tokenizers import Tokenizer

from service.contract.spec import Generation, TokenizerFile
from training.data.language_tokenizers import TITLES, FileKind, chosen_kind, rules_for
from training.data.normalization import typeset
from training.data.sources import Source
from training.data.token_store import blocks_of
from training.data.tokenizing import Tokenizing
from training.data.unchanged import Taken, take
from training.export.chunks import ChunkCell
from training.export.gate import INT8_KEY, Int8
from training.loop import parallel
from training.loop.fit import build_network, fit
from training.networks.network import RecurrentNetwork, State
from training.recipes import charlm
from training.recipes.mixing import MAX_VOCABULARY, ORDER, Mixing, mix
from training.recipes.report import Contender, Measure, Results
from training.recipes.run import PROMPT_LENGTH, Outcome, RunOptions, deliver, int8_graph, say
from training.recipes.sizes import LONG_TEXT, sizes_for
from training.recipes.text_losses import CHARACTERS_A_BLOCK, baselines, int8_gate, served_losses
from training.recipes.text_objective import NextTokenObjective
from training.recipes.token_corpus import (
    Text,
    TokenCorpus,
    encode,
    examples,
    read_text,
    start_token,
    tokenized,
)
from training.recipes.token_losses import by_character, character_baseline, token_losses, with_start

TOKENIZER_FILE = "tokenizer.json"


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
        NextTokenObjective(network, corpus, options.device, options.tuning, sizes.rows),
        options.schedule(sizes.learning_rate),
        options.folder,
        options.resume,
        {"sha256": taken.sha256, "tokenizer": f"{kind}, {tokens}"},
        sample=lambda: sample_text(network, corpus.tokenizer, start, written, options.device),
    )
    parallel.share().dismiss_followers()
    alone, mixing = network, None
    if is_mixing and len(corpus.train) < LONG_TEXT and tokens <= MAX_VOCABULARY:
        mixing = mix(network, corpus.train, corpus.develop)
        say(str(mixing))
        network = mixing.network
    graph = int8_graph(options, network)
    results = evaluate(network, corpus, text, options.device, graph, alone)
    return deliver(options, _outcome(options, text, taken, kind, corpus, network, results, graph, mixing))


def _outcome(
    options: RunOptions,
    text: Text,
    taken: Taken,
    kind: FileKind,
    corpus: TokenCorpus,
    network: RecurrentNetwork,
    results: Results,
    graph: bytes | None,
    mixing: Mixing | None,
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
            + (f" Its distribution is mixed with a {ORDER}-gram's." if mixing and mixing.is_mixed else "")
        ),
        split=(
            f"By position: the last {count['held_out']:,} characters held out; of those before, "
            f"{count['develop']:,} from the middle picked the epoch, the other {count['train']:,} for "
            "training. The tokenizer comes from the training part alone. Losses by epoch are nats a token."
            + (f" What the development part says, {mixing}." if mixing else "")
        ),
        limits=(
            "Knows the style of one text and no facts. Any text has tokens, since what is none of the words, "
            "sub-words or characters is read byte by byte."
        ),
        files={TOKENIZER_FILE: corpus.tokenizer.to_str(pretty=True).encode()},
        int8=Int8(graph, int8_gate(results.metrics())) if graph else None,
        call=("generate", _prompt(pieces[-1]), "--max-tokens", "200"),
    )


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


def _prompt(piece: str) -> str:
    """Return the beginning of a piece's longest line."""
    line = max(piece.split("\n"), key=len).strip()[:PROMPT_LENGTH]
    return line if line.isprintable() else ""


def evaluate(
    network: RecurrentNetwork,
    corpus: TokenCorpus,
    text: Text,
    device: str,
    int8: bytes | None = None,
    alone: RecurrentNetwork | None = None,
) -> Results:
    """Measure the loss on the held-out part, beside an n-gram over characters; with int8 weights, too, where
    they are given, and the network alone where it is served mixed.

    All losses are those of characters 2..N, since the n-gram is given the first.
    """
    config, start, ids = network.config, start_token(corpus), corpus.held_out
    tokens = {
        Contender(f"{config.cell} {config.layers} x {config.hidden}", "held_out"): token_losses(
            network, ids, start, device
        )
    }
    if int8:
        size = corpus.tokenizer.get_vocab_size()
        tokens[Contender("int8", INT8_KEY)] = served_losses(ChunkCell(int8), with_start(ids, start), size)
    if alone is not None and alone is not network:
        tokens[Contender("without n-gram", "network_alone")] = token_losses(alone, ids, start, device)
    held_out = "".join(blocks_of(text.parts.held_out))
    contenders = {
        contender: by_character(losses, ids, corpus.tokenizer, held_out)[1:]
        for contender, losses in tokens.items()
    } | baselines(character_baseline(text), len(text.alphabet.vocabulary))
    units = tuple(contenders.values())
    values = tuple(float(one.mean()) for one in units)
    a_token = tuple(float(tokens[one].mean()) if one in tokens else None for one in contenders)
    measures = (
        Measure("loss, nats a character", "loss", values, ".4f", units=units, block=CHARACTERS_A_BLOCK),
        Measure("loss, nats a token", "token_loss", a_token, ".4f"),
        Measure("perplexity a character", "perplexity", tuple(map(math.exp, values)), ".2f"),
    )
    return Results(f"last {len(held_out):,} characters", tuple(contenders), measures)
