"""Four of the shapes, each of which is trained in seconds."""

from collections.abc import Sequence
from string import ascii_lowercase

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from service.contract.spec import Classification, TokenizerFile
from training.lecture.lesson import decode, encode, greedy, learn, one_hot_network
from training.networks.network import Cell, RecurrentNetwork, last_steps
from training.shapes.solved import Solved, characters

BY_HEART = "Everything is trained on; nothing is held out."

ALPHABET_WIDTH, ALPHABET_EPOCHS, ALPHABET_RATE = 16, 120, 0.05

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
END = "\n"
DIGIT_VOCABULARY = END + "0123456789" + "".join(sorted(set("".join(DIGITS))))
DIGIT_WIDTH, DIGIT_EPOCHS, DIGIT_RATE = 32, 150, 0.03

LABELS = ("zeros", "ones")
UNKNOWN = "[UNK]"
BITS = (UNKNOWN, "0", "1")
MOST_BITS = 15
BIT_STRINGS, BIT_HELD_OUT = 1200, 400
BIT_WIDTH, BIT_EPOCHS, BIT_RATE = 8, 60, 0.05
TOKENIZER_FILE = "tokenizer.json"

WAVE = "abcdcb"
WAVE_VOCABULARY = "abcd"
WAVE_STEPS = 18
WAVE_WIDTH, WAVE_EPOCHS, WAVE_RATE = 8, 150, 0.05


def teach_alphabet(cell: Cell, seed: int) -> Solved:
    """Train one to one: a letter in, the next letter out; no step before it matters."""
    size = len(ascii_lowercase)
    network = one_hot_network(cell, size, seed, hidden=ALPHABET_WIDTH, outputs=size)
    letters = torch.arange(size)[:, None]
    history = learn(network, letters, (letters + 1) % size, ALPHABET_EPOCHS, ALPHABET_RATE)
    with torch.no_grad():
        said = decode(network.outputs_of(network(letters)[0])[:, 0].argmax(dim=-1), ascii_lowercase)
    right = sum(one == ascii_lowercase[(index + 1) % size] for index, one in enumerate(said))
    return Solved(
        name="alphabet",
        network=network,
        section=characters(ascii_lowercase, 1),
        examples=[encode(letter, ascii_lowercase) for letter in "az"],
        accuracy=right / size,
        shown=[
            f"in    {ascii_lowercase}",
            f"out   {said}",
            _losses(history.losses),
            f"right {right} of {size}",
        ],
        summary="One letter in, the next letter of the alphabet out, a after z: docs/shapes.md.",
        split=BY_HEART,
        limits="One step: what it says after two letters was never trained.",
        data=ascii_lowercase,
        call="seqserve generate --model alphabet --temperature 0 --max-tokens 1 q",
        seed=seed,
    )


def teach_digits(cell: Cell, seed: int) -> Solved:
    """Train one to many: a digit in, its name out letter by letter, each of which is the next input."""
    size = len(DIGIT_VOCABULARY)
    network = one_hot_network(cell, size, seed, hidden=DIGIT_WIDTH, outputs=size)
    texts = [encode(f"{digit}{name}{END}", DIGIT_VOCABULARY) for digit, name in enumerate(DIGITS)]
    inputs, targets = (
        pad_sequence(part, batch_first=True)
        for part in ([text[:-1] for text in texts], [text[1:] for text in texts])
    )
    history = learn(
        network, inputs, targets, DIGIT_EPOCHS, DIGIT_RATE, torch.tensor([len(text) - 1 for text in texts])
    )
    longest = inputs.shape[1]
    said = [decode(greedy(network, text[:1], longest), DIGIT_VOCABULARY).partition(END)[0] for text in texts]
    right = sum(one == name for one, name in zip(said, DIGITS, strict=True))
    return Solved(
        name="digits",
        network=network,
        section=characters(DIGIT_VOCABULARY, longest),
        examples=[text[:-1] for text in (texts[0], texts[1], texts[3])],
        accuracy=right / len(DIGITS),
        shown=[
            *(f"{digit}  {one}" for digit, one in enumerate(said)),
            _losses(history.losses),
            f"right {right} of {len(DIGITS)}",
        ],
        summary="One digit in, its English name out: docs/shapes.md.",
        split=BY_HEART,
        limits="Ten words.",
        data=" ".join(DIGITS),
        call="seqserve generate --model digits --temperature 0 --stop '\\n' 7",
        seed=seed,
    )


def teach_majority(cell: Cell, seed: int) -> Solved:
    """Train many to one: a string of bits in, at its end whether ones or zeros are more."""
    network = one_hot_network(cell, len(BITS), seed, hidden=BIT_WIDTH, outputs=len(LABELS))
    strings = bit_strings(BIT_STRINGS, seed)
    train, held_out = strings[BIT_HELD_OUT:], strings[:BIT_HELD_OUT]
    losses = _learn_ends(network, *_bits(train))
    tokens, lengths, labels = _bits(held_out)
    with torch.no_grad():
        right = int((_ends(network, tokens, lengths).argmax(dim=-1) == labels).sum())
    return Solved(
        name="majority",
        network=network,
        section=Classification(
            text=TokenizerFile(kind="tokenizer", file=TOKENIZER_FILE), labels=list(LABELS)
        ),
        examples=[tokens[row, : lengths[row]] for row in (int(lengths.argmin()), int(lengths.argmax()))],
        accuracy=right / len(held_out),
        shown=[
            f"{len(train):,} strings of 1 to {MOST_BITS} bits to train on, {len(held_out)} others held out",
            _losses(losses),
            f"right {right} of {len(held_out)} held out",
        ],
        summary="A string of bits in, out whether ones or zeros are more: docs/shapes.md.",
        split=f"By string: {len(train):,} to train on, {len(held_out)} others held out.",
        limits=f"Trained on odd lengths up to {MOST_BITS}: of other lengths nothing is known.",
        data=" ".join(train),
        call="seqserve classify --model majority 1101001",
        seed=seed,
        files={TOKENIZER_FILE: _tokenizer().to_str(pretty=True).encode()},
    )


def bit_strings(count: int, seed: int) -> list[str]:
    """Return different strings of odd lengths, so that no count is even, in random order."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        length = 1 + 2 * int(torch.randint((MOST_BITS + 1) // 2, (), generator=generator))
        found["".join(map(str, torch.randint(2, (length,), generator=generator).tolist()))] = None
    order = torch.randperm(count, generator=generator).tolist()
    strings = list(found)
    return [strings[index] for index in order]


def majority(bits: str) -> str:
    """Return the right label."""
    return LABELS[2 * bits.count("1") > len(bits)]


def _bits(strings: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids (B, T), lengths (B,) and labels (B,)."""
    tokens = pad_sequence(
        [torch.tensor([BITS.index(bit) for bit in bits]) for bits in strings], batch_first=True
    )
    return (
        tokens,
        torch.tensor(list(map(len, strings))),
        torch.tensor([LABELS.index(majority(bits)) for bits in strings]),
    )


def _ends(network: RecurrentNetwork, tokens: Tensor, lengths: Tensor) -> Tensor:
    return network.outputs_of(last_steps(network(tokens, lengths)[0], lengths))


def _learn_ends(network: RecurrentNetwork, tokens: Tensor, lengths: Tensor, labels: Tensor) -> list[float]:
    """Minimize the cross-entropy at the last valid step of all strings at once; return the losses."""
    optimizer = torch.optim.Adam([one for one in network.parameters() if one.requires_grad], lr=BIT_RATE)
    losses = []
    for _ in range(BIT_EPOCHS):
        loss = cross_entropy(_ends(network, tokens, lengths), labels)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.eval()
    return losses


def _tokenizer() -> Tokenizer:
    """Return a tokenizer with a token for each digit."""
    tokenizer = Tokenizer(models.WordLevel({bit: token for token, bit in enumerate(BITS)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Digits(individual_digits=True)
    return tokenizer


def teach_wave(cell: Cell, seed: int) -> Solved:
    """Train many to many: at every letter the next one.

    After b comes c on the way up and a on the way down; from the second letter on the state knows.
    """
    network = one_hot_network(
        cell, len(WAVE_VOCABULARY), seed, hidden=WAVE_WIDTH, outputs=len(WAVE_VOCABULARY)
    )
    period = len(WAVE)
    texts = [(WAVE * (WAVE_STEPS // period + 2))[start : start + WAVE_STEPS + 1] for start in range(period)]
    tokens = torch.stack([encode(text, WAVE_VOCABULARY) for text in texts])
    history = learn(network, tokens[:, :-1], tokens[:, 1:], WAVE_EPOCHS, WAVE_RATE)
    with torch.no_grad():
        predicted = network.outputs_of(network(tokens[:, :-1])[0]).argmax(dim=-1)
    # The first letter does not tell which way it goes.
    right = float((predicted[:, 1:] == tokens[:, 2:]).float().mean())
    said = decode(predicted[0], WAVE_VOCABULARY)
    return Solved(
        name="wave",
        network=network,
        section=characters(WAVE_VOCABULARY, WAVE_STEPS),
        examples=[encode(text[: 6 * rows], WAVE_VOCABULARY) for rows, text in enumerate(texts[:3], 1)],
        accuracy=right,
        shown=[
            f"in   {texts[0][:-1]}",
            f"out  {said}",
            _losses(history.losses),
            f"right from the second letter on: {100 * right:.0f} %",
        ],
        summary="Letters up and down in, at each the next one out: docs/shapes.md.",
        split=BY_HEART,
        limits=f"Knows {WAVE!r}, over and over, from any place in it.",
        data=" ".join(texts),
        call="seqserve score --model wave abcdcbabcdcb abcdcbabbdcb",
        seed=seed,
    )


def _losses(losses: Sequence[float]) -> str:
    return f"loss {losses[0]:.3f} before training, {losses[-1]:.3f} after {len(losses)} epochs"
