"""Writes the next version of a text model with the same weights and a normalization.

Its card shows what that changes on the held-out part, typed in other ways.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from service.contract import spec
from service.contract.normalizing import Normalizer
from service.contract.spec import Normalization
from training.data.characters import characters_of
from training.data.files import read_whole
from training.data.normalization import TYPOGRAPHIC, choose, typeset
from training.data.sources import Source
from training.errors import TrainingError
from training.evaluate.held_labels import HeldLabels, label_probabilities
from training.evaluate.held_text import HeldText
from training.evaluate.promote import facts_of
from training.evaluate.scorer import HeldOut
from training.evaluate.version import Version
from training.export.card import card_files
from training.export.version_folder import next_version, write_version
from training.recipes import sentiment

# A typographic character that training saw as often as this has a meaning of its own for the weights.
LEARNT = 10

_FULL_WIDTH = {point: point + 0xFEE0 for point in range(0x21, 0x7F)}
WAYS: Mapping[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "with curved apostrophes": lambda text: text.replace("'", "\u2019"),
    "with curved quotation marks, dashes and an ellipsis": lambda text: (
        text.replace("''", "\u201c").replace("'", "\u2019").replace("...", "\u2026").replace("--", "\u2014")
    ),
    "with spaces that do not break": lambda text: text.replace(" ", "\u00a0"),
    "with decomposed accents": lambda text: unicodedata.normalize("NFD", text),
    "with soft hyphens": lambda text: text.replace("in", "in\u00ad"),
    "with a byte-order mark and zero-width spaces": lambda text: "\ufeff" + text.replace("e", "e\u200b", 3),
    "with ligatures": lambda text: text.replace("fi", "\ufb01").replace("fl", "\ufb02"),
    "in full width": lambda text: text.translate(_FULL_WIDTH),
    "with CRLF": lambda text: text + "\r\n",
}


def normalized_version(version: Version, part: HeldOut, source: Source) -> Path:
    """Write the next version: the same files, with a normalization and golden texts.

    Args:
        version: a text model without a normalization.
        part: its held-out part.
        source: what it was trained on.
    Returns:
        The new folder.
    Raises:
        TrainingError: it is no text model, has a normalization, or the folder cannot be written.
    """
    text = _text_of(version.model)
    if text is None or text.normalization is not None:
        raise TrainingError(f"{version.title}: expected a text model without a normalization, found another")
    rules = _rules(version, source)
    parent = version.folder.parent
    first = _with_rules(version, part, rules, next_version(parent))
    facts = replace(
        facts_of(version.folder),
        promotion=(
            f"The weights, graphs and golden outputs are those of {version.title}; new is that "
            f"{len(rules.characters)} typographic characters are read as plain ones. "
            f"Before and after, the held-out part typed in other ways:\n\n{table(version, part, rules)}"
        ),
    )
    files = {name: (version.folder / name).read_bytes() for name in first.files}

    def describe(number: int) -> tuple[spec.ModelSpec, dict[str, bytes]]:
        model = first.model_copy(update={"version": number})
        return model, {**files, **card_files(model, facts)}

    return write_version(parent, describe)


def _text_of(model: spec.ModelSpec) -> spec.Characters | spec.TokenizerFile | None:
    section = model.generation or model.classification
    return section.text if section else None


def _rules(version: Version, source: Source) -> Normalization:
    if version.model.generation is not None:
        vocabulary = characters_of(version.model.generation)
        return choose(vocabulary, vocabulary)
    paths = [path for path in (source.path, source.more) if path]
    counts = Counter("".join(read_whole(path, source.encoding) for path in paths))
    return choose(one for one in TYPOGRAPHIC if counts[one] >= LEARNT)


def _with_rules(version: Version, part: HeldOut, rules: Normalization, number: int) -> spec.ModelSpec:
    model = version.model
    texts = _golden_texts(version, part)
    golden = [
        one.model_copy(update={"text": typeset(text, rules)})
        for one, text in zip(model.golden, texts, strict=True)
    ]
    task = "generation" if model.generation is not None else "classification"
    section = model.generation or model.classification
    assert section is not None, "the caller has checked it"
    text = section.text.model_copy(update={"normalization": rules})
    changed = {"version": number, "golden": golden, task: section.model_copy(update={"text": text})}
    # Parsed again, because a copy checks nothing.
    return spec.parse_spec(model.model_copy(update=changed).model_dump_json(exclude_none=True))


def _golden_texts(version: Version, part: HeldOut) -> list[str]:
    """Find the texts of the golden examples.

    Raises:
        TrainingError: an example is no held-out text.
    """
    model = version.model
    if model.generation is not None:
        vocabulary = characters_of(model.generation)
        return ["".join(vocabulary[token] for token in golden.tokens or ()) for golden in model.golden]
    assert model.classification is not None, "the caller has checked it"
    assert isinstance(part, HeldLabels), "the held-out part of a classifier is labelled"
    tokenizer = Tokenizer.from_str(version.files[model.classification.text.file].decode())
    text_of = {tuple(tokenizer.encode(text).ids): text for text in part.texts.texts}
    try:
        return [text_of[tuple(golden.tokens or ())] for golden in model.golden]
    except KeyError as error:
        raise TrainingError(f"{version.title}: expected golden examples of the held-out part") from error


def table(version: Version, part: HeldOut, rules: Normalization) -> str:
    """Measure the held-out part in all ways of typing it, without and with the rules: a Markdown table."""
    if isinstance(part, HeldLabels):
        head = "| held out, typed | accuracy, % | with normalization | labels changed | with normalization |"
        rows = _label_rows(version, part.texts, rules)
    else:
        assert isinstance(part, HeldText), "the held-out part of a generator is a text"
        head = "| held out, typed | lines refused, % | with normalization |"
        rows = _refusal_rows(version, part.text, rules)
    line = "|" + " --- |" + " ---: |" * (head.count("|") - 2)
    return "\n".join([head, line, *(f"| {' | '.join(row)} |" for row in rows)])


def _label_rows(version: Version, part: sentiment.Texts, rules: Normalization) -> list[list[str]]:
    cell = version.cell()

    def labels(texts: Sequence[str]) -> list[int]:
        found: list[int] = (
            label_probabilities(version, cell, replace(part, texts=list(texts))).argmax(axis=1).tolist()
        )
        return found

    plain, classes = labels(part.texts), part.classes.tolist()
    rows = []
    for title, way in WAYS.items():
        typed = list(map(way, part.texts))
        both = labels(typed), labels(list(map(Normalizer(rules).normalized, typed)))
        accuracy = [f"{100 * _share_equal(found, classes):.2f}" for found in both]
        changed = [f"{sum(map(int.__ne__, found, plain)):,} of {len(plain):,}" for found in both]
        rows.append([title, *accuracy, *changed])
    return rows


def _share_equal(found: Sequence[int], expected: Sequence[int]) -> float:
    return sum(map(int.__eq__, found, expected)) / len(expected)


def _refusal_rows(version: Version, text: str, rules: Normalization) -> list[list[str]]:
    assert version.model.generation is not None, "a held-out text is that of a generator"
    known = set(characters_of(version.model.generation))
    lines = [line for line in text.split("\n") if line]
    rows = []
    for title, way in WAYS.items():
        typed = list(map(way, lines))
        both = typed, list(map(Normalizer(rules).normalized, typed))
        refused = (100 * sum(not known.issuperset(line) for line in texts) / len(lines) for texts in both)
        rows.append([title, *(f"{share:.1f}" for share in refused)])
    return rows
