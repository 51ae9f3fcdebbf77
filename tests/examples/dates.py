"""Dates as people write them to ISO 8601, '3 May 2021' to '2021-05-03': an encoder and a decoder.

A GRU that looks both ways reads the words of a date in one of three forms; its last states are the start of
the GRU that writes the characters. The answer is right as a whole or not at all, and the dates asked for are
in no training batch. The baseline copies day and year, and takes the month to be the most frequent one.
"""

import calendar
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from service.contract import spec
from tests.examples.made import SEED, Answer, Made, package, teach
from training.export.sequences.compare import Example
from training.networks.sequences import LayerConfig, SequenceConfig, SequenceNetwork

FIRST, NUM_DAYS = date(1950, 1, 1), 36_525
FORMS: tuple[Callable[[date], str], ...] = (
    lambda day: f"{day.day} {_month(day)} {day.year}",
    lambda day: f"{_month(day)} {day.day}, {day.year}",
    lambda day: f"{calendar.day_name[day.weekday()]}, {day.day} {_month(day)} {day.year}",
)
WORDS = (
    ",",
    *calendar.day_name,
    *calendar.month_name[1:],
    *map(str, range(1, 32)),
    *map(str, range(FIRST.year, FIRST.year + 100)),
)
TOKENIZER = "source-tokenizer.json"
WRITTEN = "^$-0123456789"
START, END = 0, 1
MAX_LENGTH = 12
MAX_STEPS = 8
_BATCH, _STEPS, _NUM_ASKED, _NUM_DAYS = 32, 550, 100, 8_000


def _month(day: date) -> str:
    return calendar.month_name[day.month]


def tokenizer() -> Tokenizer:
    """Return the tokenizer of the source, which has no token for unknown words."""
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}))
    made.pre_tokenizer = Whitespace()
    return made


def make() -> Made:
    generator = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    encoder = SequenceConfig(
        "whole", (LayerConfig("gru", 64, "both"),), 0, vocabulary=len(WORDS), embedding=64, pooling="last"
    )
    config = SequenceConfig(
        "chunk",
        (LayerConfig("gru", 128),),
        len(WRITTEN),
        vocabulary=len(WRITTEN),
        embedding=32,
        encoder=encoder,
        has_norm=True,
    )
    network = SequenceNetwork(config)
    words = tokenizer()
    days = [FIRST + timedelta(int(one)) for one in generator.permutation(NUM_DAYS)]
    asked, known = days[:_NUM_ASKED], days[_NUM_ASKED:_NUM_DAYS]
    # Sources of one form have one length: PyTorch's packed GRU takes several times as long.
    sources = [torch.stack([_source(words, form(day)) for day in known]) for form in FORMS]
    targets = torch.stack([_ids(day) for day in known])

    def loss() -> torch.Tensor:
        chosen, form = generator.integers(0, len(known), _BATCH), generator.integers(len(FORMS))
        state = network.first_state(_BATCH, source=sources[form][chosen])
        logits, _ = network(targets[chosen, :-1], state=state)
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets[chosen, 1:])

    teach(network, loss, steps=_STEPS, learning_rate=0.01)
    questions = [_question(words, day, FORMS[index % len(FORMS)](day)) for index, day in enumerate(asked)]
    section = spec.Generation(
        text=spec.Characters(kind="characters", vocabulary=WRITTEN),
        start_token=START,
        end_tokens=[END],
        max_tokens=MAX_LENGTH,
    )
    source = spec.SourceSpec(
        input=spec.TokenInput(kind="tokens", size=len(WORDS)),
        text=spec.TokenizerFile(kind="tokenizer", file=TOKENIZER),
        max_steps=MAX_STEPS,
    )
    right = [day.isoformat() for day in asked]
    files = {TOKENIZER: words.to_str().encode()}
    made = package("dates", network, section, questions, "Writes dates as ISO 8601 has them.", files)
    return Made(
        replace(made, source=source),
        questions,
        lambda found: sum(one.text == text for one, text in zip(found, right, strict=True)) / len(right),
        bar=0.9,
        baseline=Counter(day.month for day in asked).most_common(1)[0][1] / len(asked),
        wrong={
            "the year is cut off": lambda one: replace(one, source=_of(one)[:-1]),
            "words are numbered otherwise": lambda one: replace(one, source=(_of(one) + 1) % len(WORDS)),
        },
    )


def _of(question: Example) -> torch.Tensor:
    assert question.source is not None, "every question has a source"
    return question.source


def _source(words: Tokenizer, text: str) -> torch.Tensor:
    return torch.tensor(words.encode(text).ids)


def _ids(day: date) -> torch.Tensor:
    """Return start, the characters of the date, end."""
    return torch.tensor([START, *(WRITTEN.index(one) for one in day.isoformat()), END])


def _question(words: Tokenizer, day: date, text: str) -> Example:
    """Return a date, with the start and its answer as the decoder reads them."""
    return Example(_ids(day)[:-1], source=_source(words, text), source_text=text)


def answers(made: Made, questions: Sequence[Example]) -> list[Answer]:
    """Return the dates that PyTorch writes, always with the most probable character."""
    return [Answer(text=_written(made.package.network, _of(one))) for one in questions]


def _written(network: SequenceNetwork, source: torch.Tensor) -> str:
    found: list[int] = []
    with torch.no_grad():
        state, last = network.first_state(1, source=source[None]), START
        for _ in range(MAX_LENGTH):
            logits, state = network(torch.tensor([[last]]), state=state)
            last = int(logits.argmax())
            found.append(last)
    return "".join(WRITTEN[one] for one in found[: [*found, END].index(END)])
