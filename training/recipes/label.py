"""A tag a word: an LSTM that looks both ways over words, or over words and parts of unknown ones.

Where a word is several tokens, each of them learns the word's tag, and the last one's counts: that of a
network that looks forward has then read the whole word. Arrays are batch first.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from service.contract.sections import TokenizerFile
from service.contract.sequences import OutputSpec, SequencesSpec
from training import markdown
from training.data.tagged import Sentence, TaggedChoice, read_tagged
from training.data.unchanged import Taken, take
from training.data.weights import class_weights
from training.data.word_tokenizer import Case, Units, word_tokenizer
from training.export.export import seeded_examples
from training.export.sequences.compare import Example
from training.loop import parallel
from training.loop.fit import build_sequence_network, fit
from training.networks.sequences import SequenceConfig, SequenceNetwork
from training.recipes import label_results
from training.recipes.run import RunOptions, say, use_one_thread
from training.recipes.sequence_delivery import (
    Finished,
    all_outputs,
    deliver_sequences,
    labelled,
    layers_of,
    random_batches,
    rows_of,
    run_rows,
)
from training.recipes.series_results import softmax

Direction = Literal["both", "forward"]
Floats = NDArray[np.float64]

RECIPE = "label"
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.01
DROPOUT = 0.3
WORD_DROPOUT = 0.1
WIDEST_EMBEDDING = 100
TRAIN_SHARE = 0.8
DEVELOPMENT_SHARE = 0.1
EXAMPLES = 6
UNKNOWN_ID = 0
TOKENIZER_FILE = "tokenizer.json"
# Labels beyond a sentence's end, which no loss counts.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class LabelChoice:
    """The data of a run, and how words are read.

    Attributes:
        tagged: file and columns.
        units: words, or words and parts of words.
        case: whether capitals are kept.
        direction: both (whole sentences), or forward (streams).
    """

    tagged: TaggedChoice
    units: Units = "words"
    case: Case = "lower"
    direction: Direction = "both"

    def facts(self) -> dict[str, str]:
        """Return the choice by name, for a checkpoint and for provenance."""
        return {**self.tagged.facts(), "units": self.units, "case": self.case}


class Parts(NamedTuple):
    """The sentences: training, development (picks the epoch), held out (reported)."""

    train: list[Sentence]
    develop: list[Sentence]
    held_out: list[Sentence]


class Encoded(NamedTuple):
    """A sentence as the network reads it.

    Attributes:
        tokens: int64 (T,).
        labels: int64 (T,), of the word that each token is part of.
        last: int64 (words,), the last token of each word.
    """

    tokens: Tensor
    labels: Tensor
    last: NDArray[np.int64]


def split(sentences: Sequence[Sentence], seed: int) -> Parts:
    """Deal the sentences at random to three parts."""
    order = np.random.default_rng(seed).permutation(len(sentences))
    cuts = [int(len(order) * share) for share in (TRAIN_SHARE, TRAIN_SHARE + DEVELOPMENT_SHARE)]
    return Parts(*([sentences[index] for index in part] for part in np.split(order, cuts)))


def held_out(choice: LabelChoice, seed: int) -> list[Sentence]:
    """Return the sentences that a run of this choice and seed held out."""
    return split(read_tagged(choice.tagged), seed).held_out


def train(options: RunOptions, choice: LabelChoice) -> Path:
    """Train on tagged sentences, measure on those held out, export.

    Returns:
        The folder exported to.
    Raises:
        TrainingError: data, options or checkpoint do not fit.
    """
    use_one_thread()
    taken = take(choice.tagged.source)
    sentences = read_tagged(choice.tagged)
    taken.check_after_reading()
    parts, labels = split(sentences, options.seed), labels_of(sentences)
    counts = Counter(tag for one in sentences for tag in one.tags)
    say(f"{len(sentences):,} sentences: {', '.join(f'{tag} {counts[tag]:,}' for tag in labels[:40])}")
    say(_parts(parts))
    tokenizer = word_tokenizer((one.tokens for one in parts.train), choice.units, choice.case)
    network = learn(options, parts, labels, tokenizer, {"sha256": taken.sha256, **choice.facts()}, choice)
    parallel.share().dismiss_followers()
    return deliver_sequences(options, _finished(options, parts, labels, tokenizer, network, choice, taken))


def _finished(
    options: RunOptions,
    parts: Parts,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    network: SequenceNetwork,
    choice: LabelChoice,
    taken: Taken,
) -> Finished:
    """Measure the network on the held-out part, and return what is reported and exported."""
    encoded = [encode(tokenizer, one, labels) for one in parts.held_out]
    logits = word_logits(network, encoded, options.device)
    given = [[labels[index] for index in one.argmax(1)] for one in logits]
    baseline = label_results.FrequentTags(parts.train)
    known = np.concatenate([[labels.index(tag) for tag in one.tags] for one in parts.held_out])
    probabilities = softmax(np.concatenate(logits))
    texts = [" ".join(one.tokens) for one in parts.held_out]
    golden = seeded_examples([one.tokens for one in encoded], EXAMPLES, options.seed)
    return Finished(
        network=network,
        section=section_of(labels),
        examples=[Example(encoded[index].tokens, text=texts[index]) for index in golden],
        results=label_results.results(parts.held_out, given, baseline, labels),
        taken=taken,
        summary=_summary(labels, tokenizer, choice),
        split=f"At random by the seed, after repeats were dropped: {_parts(parts)}. "
        "The vocabulary comes from the training part alone.",
        limits=(
            "A sentence is sent with spaces between its tokens, signs among them. "
            "A word of several tokens has the label of the last of them."
        ),
        evidence=labelled(labels, probabilities, known, "words"),
        call=("label", options.name, min(texts, key=lambda text: abs(len(text) - 60))),
        choices={"recipe": RECIPE, **choice.facts()},
        files={TOKENIZER_FILE: tokenizer.to_str(pretty=True).encode()},
    )


def labels_of(sentences: Sequence[Sentence]) -> list[str]:
    """Return all tags in the order of their names."""
    return sorted({tag for one in sentences for tag in one.tags})


def section_of(labels: Sequence[str]) -> SequencesSpec:
    """Return what model.json says of text and outputs."""
    text = TokenizerFile(kind="tokenizer", file=TOKENIZER_FILE)
    return SequencesSpec(text=text, output=OutputSpec(kind="logits", labels=list(labels), steps="every"))


def _parts(parts: Parts) -> str:
    return (
        f"{len(parts.train):,} sentences for training, {len(parts.develop):,} that pick the epoch, "
        f"{len(parts.held_out):,} held out"
    )


def _summary(labels: Sequence[str], tokenizer: Tokenizer, choice: LabelChoice) -> str:
    what = "words" if choice.units == "words" else "words and parts of words"
    shown = ", ".join(map(markdown.plain, labels[:40]))
    return f"Gives each word of a sentence a tag ({shown}), over {tokenizer.get_vocab_size():,} {what}."


def encode(tokenizer: Tokenizer, sentence: Sentence, labels: Sequence[str]) -> Encoded:
    """Return a sentence as the network reads it."""
    found = tokenizer.encode(list(sentence.tokens), is_pretokenized=True)
    words = np.array(found.word_ids, np.int64)
    tags = [labels.index(sentence.tags[word]) for word in words]
    last = np.flatnonzero(np.append(words[1:] != words[:-1], True))
    return Encoded(torch.tensor(found.ids), torch.tensor(tags), last)


def learn(
    options: RunOptions,
    parts: Parts,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    data: dict[str, str],
    choice: LabelChoice,
) -> SequenceNetwork:
    """Train a network on the training part.

    Args:
        options: shape, schedule and where checkpoints live.
        parts: what is learnt from and what picks the epoch.
        labels: names of the outputs.
        tokenizer: of the training part.
        data: what is trained on, for the checkpoint.
        choice: the direction.
    Raises:
        TrainingError: options or a checkpoint do not fit.
    """
    looks_both_ways = choice.direction == "both"
    config = SequenceConfig(
        kind="whole" if looks_both_ways else "chunk",
        layers=layers_of(options, looks_both_ways=looks_both_ways),
        outputs=len(labels),
        vocabulary=tokenizer.get_vocab_size(),
        embedding=min(options.hidden, WIDEST_EMBEDDING),
        dropout=options.tuning.dropout_or(DROPOUT),
    )
    network = build_sequence_network(config, options.seed, options.device)
    objective = LabelObjective(network, parts, labels, tokenizer, options)
    fit(objective, options.schedule(LEARNING_RATE, WEIGHT_DECAY), options.folder, options.resume, data)
    return network


def word_logits(network: SequenceNetwork, encoded: Sequence[Encoded], device: str) -> list[Floats]:
    """Return the logits of the last token of each word, float64 (words, tags) a sentence."""
    outputs = all_outputs(network, [one.tokens for one in encoded], device)
    return [rows[one.last] for rows, one in zip(outputs, encoded, strict=True)]


class LabelObjective:
    """Cross-entropy at every token; some tokens are hidden in training, so that unknown ones are learnt."""

    def __init__(
        self,
        network: SequenceNetwork,
        parts: Parts,
        labels: Sequence[str],
        tokenizer: Tokenizer,
        options: RunOptions,
    ) -> None:
        self._network = network
        self.device = options.device
        self.train = [encode(tokenizer, one, labels) for one in parts.train]
        self.development = [encode(tokenizer, one, labels) for one in parts.develop]
        counts = Counter(tag for one in parts.train for tag in one.tags)
        known = np.array([max(1, counts[label]) for label in labels], np.float64)
        weights = class_weights(options.tuning.class_weights, labels, known)
        self.weights = None if weights is None else torch.from_numpy(weights).to(options.device)
        self.rows = rows_of(options, len(self.train))
        self.steps_per_epoch = -(-len(self.train) // self.rows)

    @property
    def network(self) -> SequenceNetwork:
        """The network that is trained."""
        return self._network

    def losses(self, epoch: int) -> Iterator[Tensor]:  # noqa: ARG002
        """Yield the loss of all training sentences in random batches."""
        share, batches = parallel.share(), random_batches([len(one.tokens) for one in self.train], self.rows)
        share.part_ways()
        for batch in batches:
            part = share.part(len(batch))
            mine = [self.train[index] for index in batch[part.rows]]
            hidden = [
                one.tokens.masked_fill(torch.rand(len(one.tokens)) < WORD_DROPOUT, UNKNOWN_ID) for one in mine
            ]
            yield part.weight * self._loss(hidden, mine)

    def develop(self) -> float:
        """Return the mean loss a token over the development part."""
        total, count = 0.0, 0
        for start in range(0, len(self.development), self.rows):
            some = self.development[start : start + self.rows]
            tokens = sum(len(one.tokens) for one in some)
            total += tokens * float(self._loss([one.tokens for one in some], some))
            count += tokens
        return total / count

    def _loss(self, tokens: Sequence[Tensor], sentences: Sequence[Encoded]) -> Tensor:
        outputs, _ = run_rows(self.network, tokens, self.device)  # (B, T, tags)
        known = pad_sequence([one.labels for one in sentences], batch_first=True, padding_value=IGNORED)
        return cross_entropy(
            outputs.transpose(1, 2), known.to(self.device), weight=self.weights, ignore_index=IGNORED
        )
