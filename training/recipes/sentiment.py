"""Text classification: many to one over words, the answer read at each text's last token.

Batches hold texts of unlike lengths; no padded step reaches the loss, since only the last valid step does.
Arrays are batch first.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from seqserve.tables.rows import Row
from service.contract.normalizing import Normalizer
from service.contract.spec import Classification, Normalization, TokenizerFile
from training import markdown
from training.data.files import number, read_table
from training.data.label_normalization import rules_for
from training.data.label_tokenizers import TITLES, LabelTokenizer, label_tokenizer
from training.data.labels import read_labels
from training.data.normalization import typeset
from training.data.sources import MORE_REVIEWS, REVIEWS, Source
from training.data.tokenizing import UNKNOWN_ID, Tokenizing, Unknown, check_known, unknown_of
from training.data.unchanged import take
from training.data.weights import class_weights
from training.errors import TrainingError
from training.export.card import together
from training.export.chunks import ChunkCell
from training.export.export import seeded_examples
from training.export.gate import INT8_KEY, Gate, Int8
from training.loop import parallel
from training.loop.checkpoint import CHECKPOINT_FILE, read_history
from training.loop.fit import build_network, fit
from training.loop.tuning import Tuning
from training.networks.counting import COUNTS_WEIGHT, NETWORK_WEIGHT, can_count, counting_network, evidence
from training.networks.ensemble import side_by_side
from training.networks.network import RecurrentNetwork, last_steps
from training.recipes.baselines import naive_bayes
from training.recipes.report import Contender, Measure, Results
from training.recipes.run import Outcome, RunOptions, deliver, int8_graph, say, use_one_thread

Probabilities = NDArray[np.float64]

WIDEST_EMBEDDING = 128
DROPOUT = 0.5
WORD_DROPOUT = 0.1
LEARNING_RATE = 3e-3
ROWS = 64  # fewer for small data
FEWEST_ROWS = 4
FEWEST_STEPS = 50
# Texts are shuffled, then sorted by length within groups of so many batches: little padding, and batches that
# differ from epoch to epoch.
BATCHES_SORTED = 20
EVALUATION_ROWS = 256
TOKENIZER_FILE = "tokenizer.json"
# A mean rating r on -4..4 becomes the soft target sigmoid(1.2 r): 77 % positive at 1, 92 % at 2.
RATING_STEEPNESS = 1.2
RATING_LABELS = ["negative", "positive"]
# Of `more_reviews.tsv`: product reviews, newspaper editorials, tweets, words of a lexicon.
MORE_KINDS = ("amazon", "nyt", "tweet", "word")
TRAIN_SHARE = 0.8
DEVELOPMENT_SHARE = 0.1
EXAMPLES = 6
# Seeds of members lie so far apart that those of runs with seeds of their own do not meet them.
SEED_STEP = 100_003
CALIBRATION_BINS = 15
INT8_AGREEMENT = 99.5


# The tokenizer of the shipped model.
WORDS = Tokenizing("word")


class Table(NamedTuple):
    """The user's own CSV file and its two columns."""

    source: Source
    text_column: str
    label_column: str

    def choice(self) -> dict[str, str]:
        """Return the columns, for provenance."""
        return {"text_column": self.text_column, "label_column": self.label_column}


@dataclass(frozen=True, slots=True)
class Texts:
    """Labelled texts.

    Attributes:
        labels: names of the classes, in the order of the network's outputs.
        texts: N of them, all different.
        targets: float32 (N, classes), rows sum to 1; the largest is the text's class.
    """

    labels: list[str]
    texts: list[str]
    targets: NDArray[np.float32]

    @property
    def classes(self) -> NDArray[np.int64]:
        """int64 (N,), the class of each text."""
        return cast(NDArray[np.int64], self.targets.argmax(axis=1))

    def weights(self, asked: str) -> NDArray[np.float32] | None:
        """Return the weight of each class in the loss, float32 (classes,); None where all count alike.

        Raises:
            TrainingError: `asked` is no --class-weights.
        """
        return class_weights(asked, self.labels, self.targets.sum(axis=0, dtype=np.float64))

    def take(self, indices: NDArray[np.int64]) -> "Texts":
        """Some of them, in the order of the indices."""
        return Texts(self.labels, [self.texts[index] for index in indices], self.targets[indices])

    def normalized(self, rules: Normalization) -> "Texts":
        """The same with normalized texts."""
        return replace(self, texts=list(map(Normalizer(rules).normalized, self.texts)))

    def with_more(self, others: "Texts") -> "Texts":
        """These and others of the same labels."""
        return Texts(
            self.labels, [*self.texts, *others.texts], np.concatenate([self.targets, others.targets])
        )


class Parts(NamedTuple):
    """The data, cut at random: training, development (picks the epoch), held out (reported)."""

    train: Texts
    develop: Texts
    held_out: Texts


def train(options: RunOptions, table: Table | None, members: int = 1, wanted: Tokenizing = WORDS) -> Path:
    """The whole recipe.

    Args:
        options: common to all recipes.
        table: the user's own data; None: the shipped reviews.
        members: networks trained one after the other and put side by side.
        wanted: how texts become tokens.
    Returns:
        The folder exported to.
    Raises:
        TrainingError: data, options or checkpoint do not fit.
    """
    use_one_thread()
    source = table.source if table else REVIEWS
    taken = take(source)
    given = split(read_labelled(table) if table else read_reviews(), options.seed)
    rules = rules_for(given.train.texts)
    parts = normalized(given, rules)
    more = None if table else read_more_reviews().normalized(rules)
    taken.check_after_reading()
    learnt = parts if more is None else parts._replace(train=parts.train.with_more(more))
    print(
        f"{len(learnt.train.texts):,} texts for training, "
        f"{len(parts.develop.texts):,} for development, {len(parts.held_out.texts):,} held out"
    )
    labels = parts.train.labels
    kind, tokenizer = made = label_tokenizer(wanted, learnt.train.texts)
    unknown = unknown_of(tokenizer, parts.develop.texts)
    say_tokens(wanted, made, unknown)
    data = {
        "sha256": taken.sha256,
        "tokenizer": f"{kind}, {tokenizer.get_vocab_size()}",
        "columns": f"{table.text_column},{table.label_column}" if table else "shipped",
    }
    # A byte says nothing of a label.
    counted = None if kind == "bytes" else parts.train
    network = learn(options, learnt, tokenizer, data, members, counted)
    is_counting = network.config.hidden > options.hidden * members
    parallel.share().dismiss_followers()
    graph = int8_graph(options, network)
    results = evaluate(network, parts, tokenizer, options.device, graph)
    held_out = encode(tokenizer, parts.held_out.texts)
    golden = seeded_examples(held_out, EXAMPLES, options.seed)
    outcome = Outcome(
        network=network,
        section=Classification(
            text=TokenizerFile(kind="tokenizer", file=TOKENIZER_FILE, normalization=rules), labels=labels
        ),
        examples=[held_out[index] for index in golden],
        texts=[typeset(parts.held_out.texts[index], rules) for index in golden],
        results=results,
        taken=taken,
        choices={"recipe": "sentiment", **(table.choice() if table else {})},
        summary=(
            f"Tells {', '.join(map(markdown.plain, labels))} texts apart, "
            f"over {tokenizer.get_vocab_size():,} {TITLES[kind]}."
        )
        + (
            " Beside the trained units, one a label adds up what each word says of it by its counts alone."
            if is_counting
            else ""
        ),
        split=(
            f"At random by the seed, after repeats were dropped: {len(parts.train.texts):,} "
            f"texts for training, {len(parts.develop.texts):,} that picked the epoch, "
            f"{len(parts.held_out.texts):,} held out. The vocabulary comes from the training part alone."
        )
        + (
            (
                f" Trained on, too: {len(more.texts):,} rated texts "
                "that are no movie reviews, of which nothing is held out."
            )
            if more
            else ""
        ),
        limits=f"{known(made, unknown)} Not for decisions about people.",
        files={TOKENIZER_FILE: tokenizer.to_str(pretty=True).encode()},
        int8=Int8(graph, int8_gate(results.metrics())) if graph else None,
        history=together(
            [read_history(member_folder(options, member) / CHECKPOINT_FILE) for member in range(members)]
        ),
    )
    return deliver(options, outcome)


def say_tokens(wanted: Tokenizing, made: LabelTokenizer, unknown: Unknown) -> None:
    """Print the kind of the tokens, and how much of the development part is unknown.

    Raises:
        TrainingError: nearly all of it is.
    """
    chosen = " (chosen by auto)" if wanted.choice == "auto" else ""
    say(
        f"tokenizer: {made.kind}{chosen}: {made.tokenizer.get_vocab_size():,} {TITLES[made.kind]}; "
        f"{unknown} of the words of the development part are unknown"
    )
    check_known(made.kind, unknown)


def known(made: LabelTokenizer, unknown: Unknown) -> str:
    """Return sentences for the model card: what of a text the model knows."""
    if made.kind in ("bpe", "bytes"):
        return "Knows the words of its training texts, and reads others by their parts; no text is unknown."
    return (
        f"Knows the {'words' if made.kind == 'word' else 'characters'} of its training texts; "
        f"others are one unknown token, {unknown} of those of the development part."
    )


def learn(
    options: RunOptions,
    parts: Parts,
    tokenizer: Tokenizer,
    data: Mapping[str, str],
    members: int = 1,
    counted: Texts | None = None,
) -> RecurrentNetwork:
    """Train one or more networks that differ by their seed, and put them side by side, with units that count
    words where the cell can.

    Args:
        options: shape, schedule and where checkpoints live.
        parts: what is learnt from and what picks the epoch.
        tokenizer: of the training part.
        data: what is trained on, for the checkpoints.
        members: how many.
        counted: texts whose words are counted; None: no such units.
    Raises:
        TrainingError: options or a checkpoint do not fit.
    """
    size, labels = tokenizer.get_vocab_size(), parts.train.labels
    shape = options.network(
        vocabulary=size,
        embedding=min(options.hidden, WIDEST_EMBEDDING),
        outputs=len(labels),
        dropout=DROPOUT,
        input_dropout=DROPOUT,
    )
    networks = []
    for member in range(members):
        seed = options.seed + SEED_STEP * member
        network = build_network(shape, seed, options.device)
        objective = SentimentObjective(network, parts, tokenizer, options.device, options.tuning)
        fit(
            objective,
            options.schedule(LEARNING_RATE).of_member(seed, members),
            member_folder(options, member),
            options.resume,
            data,
        )
        networks.append(network)
    if counted is None or not can_count(shape):
        return side_by_side(networks).to(options.device)
    weights = counted.weights(options.tuning.class_weights)
    targets = counted.targets if weights is None else counted.targets * weights
    counts = counting_network(shape, evidence(encode(tokenizer, counted.texts), targets, size))
    return side_by_side([*networks, counts], [NETWORK_WEIGHT / members] * members + [COUNTS_WEIGHT]).to(
        options.device
    )


def member_folder(options: RunOptions, member: int) -> Path:
    """Where a member's checkpoint lives."""
    return options.folder / f"member-{member}" if member else options.folder


def read_reviews() -> Texts:
    """The shipped movie reviews; targets are soft, by the mean rating, and ratings of exactly 0 are left
    out.
    """
    return _rated(REVIEWS.path, read_table(REVIEWS.path, ("rating", "text"), delimiter="\t"))


def read_more_reviews(kinds: Collection[str] = MORE_KINDS) -> Texts:
    """What ships beside the movie reviews, none of it in them: rated sentences of other domains, and rated
    words as texts of their own.
    """
    rows = read_table(MORE_REVIEWS, ("rating", "text", "kind"), delimiter="\t")
    return _rated(MORE_REVIEWS, [row for row in rows if row.cells[2] in kinds])


def _rated(path: Path, rows: Sequence[Row]) -> Texts:
    """Of rows whose first two cells are rating and text."""
    ratings = np.array([number(path, row, "rating", row.cells[0]) for row in rows])
    positive = 1 / (1 + np.exp(-RATING_STEEPNESS * ratings))
    targets = np.stack([1 - positive, positive], axis=1).astype(np.float32)
    return Texts(RATING_LABELS, [row.cells[1] for row in rows], targets).take(np.flatnonzero(ratings))


def read_labelled(table: Table) -> Texts:
    """The user's own texts, labels sorted by name; a repeated text counts once, with its first label.

    Raises:
        TrainingError: the file or its columns are wrong, texts are too few or of one label.
    """
    found = read_labels(table.source, table.text_column, table.label_column)
    for note in found.notes:
        say(note)
    label_of = found.label_of
    labels = sorted(set(label_of.values()))
    classes = [labels.index(label) for label in label_of.values()]
    return Texts(labels, list(label_of), np.eye(len(labels), dtype=np.float32)[classes])


def split(everything: Texts, seed: int) -> Parts:
    """80 % training, 10 % development, 10 % held out.

    Raises:
        TrainingError: a label is missing from the training part.
    """
    order = np.random.default_rng(seed).permutation(len(everything.texts))
    first, second = (round(len(order) * share) for share in (TRAIN_SHARE, TRAIN_SHARE + DEVELOPMENT_SHARE))
    parts = Parts(*(everything.take(some) for some in np.split(order, [first, second])))
    counts = np.bincount(parts.train.classes, minlength=len(everything.labels))
    if not counts.all():
        rare = everything.labels[int(counts.argmin())]
        raise TrainingError(
            f"label {rare!r}: expected texts of it in the training part, "
            "found none: give more of them or leave the label out"
        )
    return parts


def normalized(parts: Parts, rules: Normalization) -> Parts:
    """Normalize all parts alike: the model is trained on, and asked about, what callers' texts become."""
    return Parts(*(part.normalized(rules) for part in parts))


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Tensor]:
    """Texts as token ids: int64 (T,) each."""
    return [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]


class SentimentObjective:
    """Cross-entropy with (soft) targets at the last token, over batches of texts of similar lengths; some
    words are hidden in training.
    """

    def __init__(
        self,
        network: RecurrentNetwork,
        parts: Parts,
        tokenizer: Tokenizer,
        device: str,
        tuning: Tuning = Tuning(),
    ) -> None:
        self.network = network
        self.device = device
        self.tokens = encode(tokenizer, parts.train.texts)
        self.targets = torch.from_numpy(parts.train.targets)
        self.develop_tokens = encode(tokenizer, parts.develop.texts)
        self.develop_targets = torch.from_numpy(parts.develop.targets)
        weights = parts.train.weights(tuning.class_weights)
        self.weights = None if weights is None else torch.from_numpy(weights)
        rows = min(ROWS, max(FEWEST_ROWS, len(self.tokens) // FEWEST_STEPS))
        self.rows = tuning.batch_or(rows, len(self.tokens))
        self.steps_per_epoch = -(-len(self.tokens) // self.rows)

    def losses(self, epoch: int) -> Iterator[Tensor]:  # noqa: ARG002
        """All training texts in random batches."""
        share, batches = parallel.share(), self._batches()
        share.part_ways()
        for batch in batches:
            part = share.part(len(batch))
            mine = batch[part.rows]
            lengths = torch.tensor([len(self.tokens[index]) for index in mine])
            tokens = pad_sequence([self.tokens[index] for index in mine], batch_first=True)  # (B, T)
            hidden_words = torch.rand(tokens.shape) < WORD_DROPOUT
            logits = last_logits(
                self.network, tokens.masked_fill(hidden_words, UNKNOWN_ID).to(self.device), lengths
            )
            yield part.weight * self._loss(logits, self.targets[mine])

    def _batches(self) -> list[list[int]]:
        shuffled: list[int] = torch.randperm(len(self.tokens)).tolist()
        group = self.rows * BATCHES_SORTED
        batches: list[list[int]] = []
        for start in range(0, len(shuffled), group):
            by_length = sorted(shuffled[start : start + group], key=lambda index: len(self.tokens[index]))
            batches += [by_length[first : first + self.rows] for first in range(0, len(by_length), self.rows)]
        return [batches[index] for index in torch.randperm(len(batches)).tolist()]

    def develop(self) -> float:
        """Cross-entropy over the development part, classes weighted as in training."""
        logits = all_logits(self.network, self.develop_tokens, self.device)
        return float(self._loss(logits, self.develop_targets))

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        return cross_entropy(logits, targets.to(logits.device), weight=weights)


def last_logits(network: RecurrentNetwork, tokens: Tensor, lengths: Tensor) -> Tensor:
    """The head's output at each row's last valid step: int64 (B, T), (B,) -> float32 (B, classes)."""
    # The lengths are not given to the network: what follows a row's last valid step cannot change it, and a
    # packed batch takes 1.7 times as long.
    hidden, _ = network(tokens)
    return network.outputs_of(last_steps(hidden, lengths))


def all_logits(network: RecurrentNetwork, texts: Sequence[Tensor], device: str) -> Tensor:
    """Logits of many texts, int64 (T,) each, on the CPU: float32 (N, classes)."""
    rows = []
    with torch.no_grad():
        for start in range(0, len(texts), EVALUATION_ROWS):
            some = texts[start : start + EVALUATION_ROWS]
            lengths = torch.tensor([len(tokens) for tokens in some])
            rows.append(
                last_logits(network, pad_sequence(list(some), batch_first=True).to(device), lengths).cpu()
            )
    return torch.cat(rows)


def served_logits(cell: ChunkCell, texts: Sequence[Tensor]) -> Tensor:
    """`all_logits` of a graph as it is served."""
    return torch.from_numpy(
        np.stack([outputs[-1] for outputs in cell.served(tokens.numpy() for tokens in texts)])
    )


def int8_gate(metrics: Mapping[str, float]) -> Gate:
    """How many labels int8 weights must leave as they are."""
    return Gate(
        "held-out labels equal to those of fp32, %",
        INT8_AGREEMENT,
        metrics[f"{INT8_KEY}_agreement"],
        is_least=True,
    )


def evaluate(
    network: RecurrentNetwork, parts: Parts, tokenizer: Tokenizer, device: str, int8: bytes | None = None
) -> Results:
    """The network, with int8 weights, too, where they are given, naive Bayes over words and pairs of words,
    and the most frequent label: held out.
    """
    train, held_out = parts.train, parts.held_out
    tokens = encode(tokenizer, held_out.texts)
    own: Probabilities = all_logits(network, tokens, device).double().softmax(dim=1).numpy()
    bayes = naive_bayes(train.texts, train.classes, held_out.texts, len(train.labels))
    shares = np.bincount(train.classes) / len(train.texts)
    frequent = np.broadcast_to(shares, own.shape)
    contenders = {
        Contender(
            f"{network.config.cell} {network.config.layers} x {network.config.hidden}", "held_out"
        ): own,
        **(
            {
                Contender("int8", INT8_KEY): served_logits(ChunkCell(int8), tokens)
                .double()
                .softmax(dim=1)
                .numpy()
            }
            if int8
            else {}
        ),
        Contender("naive Bayes, bigrams", "baseline_nb"): bayes,
        Contender("most frequent label", "baseline_majority"): frequent,
    }
    classes = held_out.classes
    everyone = tuple(contenders.values())
    measures = [
        _share_right("accuracy, %", "accuracy", everyone, classes, np.ones(len(classes))),
        Measure("log loss, nats", "log_loss", tuple(log_loss(one, classes) for one in everyone)),
        Measure(
            "calibration error, %",
            "calibration_error",
            tuple(100 * calibration_error(one, classes) for one in everyone),
            ".1f",
        ),
    ]
    if int8:
        same = (100 * float((one.argmax(axis=1) == own.argmax(axis=1)).mean()) for one in everyone)
        shown = (
            share if contender.key == INT8_KEY else None
            for contender, share in zip(contenders, same, strict=True)
        )
        measures.append(Measure("labels equal to fp32, %", "agreement", tuple(shown), ".2f"))
    counts = np.bincount(classes, minlength=len(held_out.labels))
    even = len(classes) / (counts[classes] * np.count_nonzero(counts))
    measures.append(_share_right("mean over labels, %", "macro_recall", everyone, classes, even))
    for index, label in enumerate(held_out.labels):
        if counts[index]:
            recalls = tuple(
                100 * float((one.argmax(axis=1)[classes == index] == index).mean()) for one in everyone
            )
            measures.append(Measure(f"found of {label}, %", f"recall_{label}", recalls, ".1f"))
    return Results(f"{len(classes):,} texts held out", tuple(contenders), tuple(measures))


def _share_right(
    title: str,
    key: str,
    everyone: Sequence[Probabilities],
    classes: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> Measure:
    """Return the share of texts that each contender labels right, in per cent.

    Args:
        title, key: of the measure.
        everyone: probabilities of the contenders, (N, classes) each.
        classes: int64 (N,), the true ones.
        weights: float64 (N,), how much each text counts; their mean is 1.
    """
    units = tuple(100.0 * weights * (one.argmax(axis=1) == classes) for one in everyone)
    return Measure(title, key, tuple(float(one.mean()) for one in units), ".1f", "more", units)


def log_loss(probabilities: Probabilities, classes: NDArray[np.int64]) -> float:
    """Mean of -log of the probability given to the true class."""
    given = probabilities[np.arange(len(classes)), classes]
    return -float(np.log(np.maximum(given, np.finfo(np.float64).tiny)).mean())


def calibration_error(probabilities: Probabilities, classes: NDArray[np.int64]) -> float:
    """Expected calibration error (Guo et al. 2017): |accuracy - confidence| in bins of equal width of the
    confidence, weighted by their texts.
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == classes
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.abs(np.bincount(bins, is_right - confidence, minlength=CALIBRATION_BINS))
    return float(gaps.sum() / len(classes))
