"""Captions from eight image features: a chunk LSTM over words whose first state an init graph computes.

An image shows one thing of a size, a colour, a shape and a place; its features are a fixed mixture of these
with noise, as a vision network's would be. A caption is right as a whole or not at all. The baseline is the
most frequent caption.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from service.contract import spec
from tests.examples.made import SEED, Answer, Made, package, teach
from training.export.sequences.compare import Example
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

IMAGE = "image"
FEATURES = 8
START, END, UNKNOWN = "[START]", "[END]", "[UNK]"
TOKENIZER = "tokenizer.json"
MAX_WORDS = 12
SIZES = ("", "big")
COLOURS = ("red", "green", "blue")
SHAPES = ("circle", "square")
PLACES = ("on the left", "in the middle", "on the right")
SCENES = list(product(range(len(SIZES)), range(len(COLOURS)), range(len(SHAPES)), range(len(PLACES))))
_NOISE = 0.12

Rows = NDArray[np.float64]
Scene = tuple[int, int, int, int]


def caption(scene: Scene) -> str:
    size, colour, shape, place = scene
    return " ".join(["a", *SIZES[size].split(), COLOURS[colour], SHAPES[shape], PLACES[place]])


WORDS = (UNKNOWN, START, END, *sorted({word for scene in SCENES for word in caption(scene).split()}))


def tokenizer() -> Tokenizer:
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    made.pre_tokenizer = WhitespaceSplit()
    return made


def image(generator: np.random.Generator, mixture: Rows, scene: Scene) -> Rows:
    """Return the features of an image of a scene, (8,)."""
    size, colour, shape, place = scene
    plain = np.array([size, *(colour == one for one in range(3)), shape, place == 0, place == 2, 1.0])
    return mixture @ (plain + generator.normal(0, _NOISE, FEATURES))


def make() -> Made:
    generator = np.random.default_rng(SEED)
    mixture = np.linalg.qr(generator.normal(size=(FEATURES, FEATURES)))[0]
    torch.manual_seed(SEED)
    config = SequenceConfig(
        "chunk",
        (LayerConfig("lstm", 32),),
        len(WORDS),
        vocabulary=len(WORDS),
        embedding=12,
        initial=((IMAGE, FEATURES),),
    )
    network = SequenceNetwork(config)
    words = torch.nn.utils.rnn.pad_sequence([_ids(scene) for scene in SCENES], True, -1)

    def loss() -> torch.Tensor:
        chosen = generator.integers(0, len(SCENES), 64)
        images = np.stack([image(generator, mixture, SCENES[index]) for index in chosen])
        state = network.first_state(len(chosen), {IMAGE: torch.from_numpy(images).float()})
        targets = words[chosen]
        logits, _ = network(targets[:, :-1].clamp(min=0), state=state)
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets[:, 1:], ignore_index=-1)

    teach(network, loss, steps=260, learning_rate=0.02)
    scenes = [SCENES[index] for index in generator.integers(0, len(SCENES), 100)]
    questions = [_question(scene, image(generator, mixture, scene)) for scene in scenes]
    section = spec.Generation(
        text=spec.TokenizerFile(kind="tokenizer", file=TOKENIZER),
        start_token=WORDS.index(START),
        end_tokens=[WORDS.index(END)],
        max_tokens=MAX_WORDS,
    )
    right = [caption(scene) for scene in scenes]
    files = {TOKENIZER: tokenizer().to_str().encode()}
    return Made(
        package("captions", network, section, questions, "Says what an image shows.", files),
        questions,
        lambda found: sum(one.text == text for one, text in zip(found, right, strict=True)) / len(right),
        bar=0.9,
        baseline=Counter(right).most_common(1)[0][1] / len(right),
        wrong={
            "the image is left out": lambda one: replace(one, initial={IMAGE: torch.zeros(FEATURES)}),
            "features are in another order": lambda one: replace(
                one, initial={IMAGE: one.initial[IMAGE].flip(0)}
            ),
        },
    )


def _ids(scene: Scene) -> torch.Tensor:
    """Return start, the words of the caption, end."""
    return torch.tensor([WORDS.index(word) for word in (START, *caption(scene).split(), END)])


def _question(scene: Scene, features: Rows) -> Example:
    """Return an image, with the start and its caption as the network reads them."""
    return Example(_ids(scene)[:-1], initial={IMAGE: torch.from_numpy(features).float()})


def answers(made: Made, questions: Sequence[Example]) -> list[Answer]:
    """Return the captions that PyTorch writes, always with the most probable word."""
    network = made.package.network
    state = network.first_state(
        len(questions), {IMAGE: torch.stack([one.initial[IMAGE] for one in questions])}
    )
    last = torch.full((len(questions), 1), WORDS.index(START))
    written: list[list[str]] = [[] for _ in questions]
    with torch.no_grad():
        for _ in range(MAX_WORDS):
            logits, state = network(last, state=state)
            last = logits.argmax(2)
            for words, (token,) in zip(written, last.tolist(), strict=True):
                words.append(WORDS[token])
    return [Answer(text=" ".join(words[: [*words, END].index(END)])) for words in written]
