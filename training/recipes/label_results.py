"""Held-out results of tagged words, the network beside each word's most frequent tag."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.tagged import Sentence
from training.recipes.class_measures import f1_by_class, mean_f1, mean_recall, share_right
from training.recipes.report import Contender, Measure, Results

# Of more tags than this the table shows no F1 each.
MOST_SHOWN = 20
ENTITY_KEY = "entity_f1"

Tags = Sequence[Sequence[str]]


class FrequentTags:
    """Baseline that gives each word its most frequent tag, others that of words seen once."""

    def __init__(self, sentences: Iterable[Sentence]) -> None:
        pairs = Counter(
            (word.lower(), tag) for one in sentences for word, tag in zip(one.tokens, one.tags, strict=True)
        )
        by_word: dict[str, Counter[str]] = {}
        for (word, tag), count in pairs.items():
            by_word.setdefault(word, Counter())[tag] = count
        once = [counts for counts in by_word.values() if counts.total() == 1] or list(by_word.values())
        self._tag_of = {word: _first(counts) for word, counts in by_word.items()}
        self._other = _first(sum(once, Counter()))

    def knows(self, word: str) -> bool:
        """Return whether the word was in the sentences."""
        return word.lower() in self._tag_of

    def tags(self, sentence: Sentence) -> list[str]:
        """Return a tag for each word."""
        return [self._tag_of.get(word.lower(), self._other) for word in sentence.tokens]


def _first(counts: Counter[str]) -> str:
    """Return the most frequent tag, of equal ones the first by name."""
    return min(counts, key=lambda tag: (-counts[tag], tag))


def results(
    sentences: Sequence[Sentence], given: Tags, baseline: FrequentTags, labels: Sequence[str]
) -> Results:
    """Return the table of the held-out part.

    Args:
        sentences: held out.
        given: the network's tags for each.
        baseline: of the training part.
        labels: all tags.
    """
    number = {label: index for index, label in enumerate(labels)}
    known = _numbers([one.tags for one in sentences], number)
    contenders = [given, [baseline.tags(one) for one in sentences]]
    tags = [_numbers(one, number) for one in contenders]
    is_new = np.array([not baseline.knows(word) for one in sentences for word in one.tokens])
    block = max(1, round(len(known) / len(sentences)))
    measures = [
        share_right("words right, %", tags, known, block),
        mean_recall("found, mean of tags, %", tags, known, block),
        mean_f1("F1, mean of tags, %", tags, known),
    ]
    if is_new.any():
        new = _each(tags, lambda one: 100 * float((one == known)[is_new].mean()))
        measures.insert(
            1, Measure(f"of {int(is_new.sum()):,} unknown words, %", "unknown_accuracy", new, ".2f", "more")
        )
    if is_bio(labels):
        entities = [100 * entity_f1(one, [sentence.tags for sentence in sentences]) for one in contenders]
        measures.append(Measure("F1 of entities, %", ENTITY_KEY, tuple(entities), ".1f", "more"))
    by_tag = [f1_by_class(one, known) for one in tags]
    if len(by_tag[0]) <= MOST_SHOWN:
        for index in by_tag[0]:
            shown = tuple(100 * one[index] for one in by_tag)
            measures.append(Measure(f"F1 of {labels[index]}, %", f"f1_{index}", shown, ".1f", "more"))
    return Results(
        f"{len(sentences):,} sentences, {len(known):,} words",
        (Contender("network", "held_out"), Contender("most frequent tag a word", "baseline_frequent")),
        tuple(measures),
        # Most words are outside of entities: a model that finds none is right there, too.
        ENTITY_KEY if is_bio(labels) else "",
    )


def _each(
    tags: Sequence[NDArray[np.int64]], measure: Callable[[NDArray[np.int64]], float]
) -> tuple[float, ...]:
    return tuple(measure(one) for one in tags)


def _numbers(tags: Tags, number: dict[str, int]) -> NDArray[np.int64]:
    return np.array([number[tag] for one in tags for tag in one], np.int64)


def is_bio(labels: Sequence[str]) -> bool:
    """Return whether the tags are those of entities: B-kind where one begins, I-kind inside, O outside."""
    others = [label for label in labels if label != "O"]
    has_begin = any(label.startswith("B-") for label in others)
    return "O" in labels and has_begin and all(label[:2] in ("B-", "I-") for label in others)


def entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Return the entities of a sentence: first word, word behind the last, kind.

    As conlleval reads them, an I- that follows no entity of its kind begins one.
    """
    found, start, kind = set(), 0, ""
    for index, tag in enumerate([*tags, "O"]):
        head, _, name = tag.partition("-")
        if kind and (head != "I" or name != kind):
            found.add((start, index, kind))
            kind = ""
        if head in ("B", "I") and not kind:
            start, kind = index, name
    return found


def entity_f1(given: Tags, known: Tags) -> float:
    """Return the F1 of whole entities of the right kind (CoNLL 2003), 0..1."""
    pairs = [(entities(one), entities(other)) for one, other in zip(given, known, strict=True)]
    hits = sum(len(one & other) for one, other in pairs)
    total = sum(len(one) + len(other) for one, other in pairs)
    return 2 * hits / total if total else 1.0
