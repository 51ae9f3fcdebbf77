"""Part-of-speech tags of a made grammar: a whole bidirectional LSTM over words, one label a word.

A sentence is a noun phrase, a verb, a noun phrase, and sometimes an adverb. Many words are of several kinds
("light" of three), and which one it is shows only further on: in "the cold light fish the dog" fish is the
verb, in "the cold light fish saw the dog" the noun. The baseline is each word's most frequent tag.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from service.contract import spec
from tests.examples.made import SEED, Made, package, share_right, teach
from training.export.sequences.compare import Example
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

UNKNOWN = "[UNK]"
TOKENIZER = "tokenizer.json"
LEXICON = {
    "DET": ("the", "a", "this"),
    "ADJ": ("big", "red", "light", "cold", "fast"),
    "NOUN": ("dog", "man", "box", "light", "cold", "watch", "fish", "saw", "park"),
    "VERB": ("sees", "light", "watch", "fish", "saw", "park"),
    "PRON": ("they", "we", "it"),
    "ADV": ("fast", "well"),
}
TAGS = tuple(LEXICON)
WORDS = (UNKNOWN, *sorted({word for words in LEXICON.values() for word in words}))

Sentence = list[tuple[str, str]]  # words and their tags


def sentence(generator: np.random.Generator) -> Sentence:
    tags = [*_noun_phrase(generator), "VERB", *_noun_phrase(generator)]
    if generator.random() < 0.3:
        tags.append("ADV")
    return [(str(generator.choice(LEXICON[tag])), tag) for tag in tags]


def _noun_phrase(generator: np.random.Generator) -> list[str]:
    if generator.random() < 0.2:
        return ["PRON"]
    return ["DET", *["ADJ"] * int(generator.integers(0, 3)), "NOUN"]


def tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    made.pre_tokenizer = WhitespaceSplit()
    return made


def make() -> Made:
    generator = np.random.default_rng(SEED)
    sentences = [sentence(generator) for _ in range(2000)]
    torch.manual_seed(SEED)
    config = SequenceConfig(
        "whole", (LayerConfig("lstm", 16, "both"),), len(TAGS), vocabulary=len(WORDS), embedding=12
    )
    network = SequenceNetwork(config)
    batches = _batches(sentences)

    def loss() -> torch.Tensor:
        words, tags = batches[generator.integers(len(batches))]
        outputs, _ = network(words)
        return torch.nn.functional.cross_entropy(outputs.transpose(1, 2), tags)

    teach(network, loss, steps=130, learning_rate=0.03)
    asked = [sentence(generator) for _ in range(100)]
    questions = [Example(_ids(one), text=" ".join(word for word, _ in one)) for one in asked]
    section = spec.SequencesSpec(
        text=spec.TokenizerFile(kind="tokenizer", file=TOKENIZER),
        output=spec.OutputSpec(kind="logits", labels=list(TAGS), steps="every"),
    )
    files = {TOKENIZER: tokenizer().to_str().encode()}
    return Made(
        package("tags", network, section, questions, "Tags the words of a sentence.", files),
        questions,
        share_right([[tag for _, tag in one] for one in asked]),
        bar=0.97,
        baseline=_most_frequent(sentences, asked),
        wrong={
            "words are numbered otherwise": lambda one: replace(one, inputs=(one.inputs + 1) % len(WORDS)),
            "the sentence is read backwards": lambda one: replace(one, inputs=one.inputs.flip(0)),
        },
    )


def _ids(one: Sentence) -> torch.Tensor:
    return torch.tensor([WORDS.index(word) for word, _ in one])


def _batches(sentences: list[Sentence]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return batches of at most 64 sentences of one length: words and tags, int64 (B, T)."""
    batches = []
    for length in sorted(set(map(len, sentences))):
        alike = [one for one in sentences if len(one) == length]
        for start in range(0, len(alike), 64):
            part = alike[start : start + 64]
            tags = torch.tensor([[TAGS.index(tag) for _, tag in one] for one in part])
            batches.append((torch.stack([_ids(one) for one in part]), tags))
    return batches


def _most_frequent(sentences: list[Sentence], asked: list[Sentence]) -> float:
    counts = Counter(pair for one in sentences for pair in one)
    best = {word: max(TAGS, key=lambda tag: counts[word, tag]) for word in WORDS}
    pairs = [pair for one in asked for pair in one]
    return sum(best[word] == tag for word, tag in pairs) / len(pairs)
