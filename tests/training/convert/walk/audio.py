"""Makes sounds that are like a voice: pulses of the vocal cords through resonances, words and pauses."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE: Final = 16_000
FRAME: Final = 512
# Resonances of three vowels, Hz.
_VOWELS: Final = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240))
_WORD_S, _PAUSE_S = 0.5, 0.3


def voice(frames: int, seed: int) -> NDArray[np.float32]:
    """Return frames of 512 samples at 16 kHz, (frames, 512): vowels with pauses, a little noise."""
    rng = np.random.default_rng(seed)
    count = frames * FRAME
    time = np.arange(count) / RATE
    pitch = 120 + 30 * seed % 90 + 15 * np.sin(2 * np.pi * 0.7 * time)
    phase = np.cumsum(pitch) / RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    sound = np.zeros(count)
    word = (time / (_WORD_S + _PAUSE_S)).astype(int)
    for number in range(int(word[-1]) + 1):
        chosen = word == number
        vowel = _VOWELS[(number + seed) % len(_VOWELS)]
        sound[chosen] = sum(_resonance(pulses[chosen], centre) for centre in vowel)
    within = time % (_WORD_S + _PAUSE_S)
    loud = np.clip(np.minimum(within, _WORD_S - within) / 0.05, 0, 1)
    sound = 0.3 * sound / np.abs(sound).max() * loud + rng.normal(0, 0.003, count)
    return np.asarray(sound.reshape(frames, FRAME), np.float32)


def _resonance(pulses: NDArray[np.float64], centre: int) -> NDArray[np.float64]:
    """Return pulses through a resonance of 80 Hz width."""
    length = int(0.04 * RATE)
    time = np.arange(length) / RATE
    response = np.exp(-np.pi * 80 * time) * np.sin(2 * np.pi * centre * time)
    return np.convolve(pulses, response)[: len(pulses)]
