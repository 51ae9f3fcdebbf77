"""Sealed state tokens: the recurrent state that continues a sequence, as authenticated bytes.

Any server with the key can open a token; nobody without the key can make one. Layout, little-endian:

    format | rpc | variant | hash of the model's name | version | hash of model.json
    | position | seed | pending token, column levels or nothing | state, float32 | seal

Where tokens are not characters, the format is another one, with the progress of the text before the state:
flags | number of held bytes | held bytes | prompt tokens | generated tokens.

The seal is HMAC-SHA256 over everything before it. A token is not encrypted, and the server does not store it.
"""

import hashlib
import hmac
import re
import secrets
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import numpy as np

from service.contract.spec import ModelSpec, TokenizerFile, Variant
from service.errors import InvalidArgument
from service.tasks.states import SeriesState, StateRow, StepState, TextContext, TextProgress, TextState

MIN_KEY_BYTES = 32
_FORMAT, _PROGRESS_FORMAT = b"SQS\x01", b"SQS\x02"
_SEAL_BYTES = 32
_HASH_BYTES = 16
_RPCS = ("Generate", "ForecastStream", "InferStream")
_VARIANTS: tuple[Variant, ...] = ("fp32", "int8")
_HEADER = struct.Struct(f"<4sBB{_HASH_BYTES}sI{_HASH_BYTES}s")
_PLACE = struct.Struct("<QQ")
_PENDING = struct.Struct("<I")
_PROGRESS = struct.Struct("<BB3sII")
_HAS_BEGUN, _IS_SPACED = 1, 2  # flags
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_FIELD = "state"


class KeysRefused(Exception):
    """The key file is not usable; the text names the file and the line, never a key."""


class Keys:
    """Keys that seal and verify state tokens.

    Args:
        keys: at least one; the first one seals, all of them verify.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        assert keys, "sealing needs a key"
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"Keys({len(self._keys)} hidden)"

    def seal(self, body: bytes) -> bytes:
        """Append the seal to `body`."""
        return body + _seal_of(self._keys[0], body)

    def verify(self, token: bytes) -> bool:
        """Return True if one of the keys sealed these bytes."""
        body, seal = token[:-_SEAL_BYTES], token[-_SEAL_BYTES:]
        return any(hmac.compare_digest(_seal_of(key, body), seal) for key in self._keys)


def generate_keys() -> Keys:
    """Generate a random key, known to this process only."""
    return Keys([secrets.token_bytes(MIN_KEY_BYTES)])


def read_keys(path: Path) -> Keys:
    """Read keys from a file: hexadecimal, one a line; blank lines and lines that start with # are skipped.

    Raises:
        KeysRefused: the file is missing, holds no key, or has a line that is not a key.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise KeysRefused(f"expected a file of keys, found {path}: {error.strerror}") from None
    keys = []
    for number, line in enumerate(lines, 1):
        text = line.strip().decode("ascii", "replace")
        if not text or text.startswith("#"):
            continue
        # The error text goes to the log, so it must not contain any part of the line.
        if not _HEX.fullmatch(text):
            raise KeysRefused(
                f"{path}, line {number}: expected an even number of hexadecimal digits, found something else"
            )
        key = bytes.fromhex(text)
        if len(key) < MIN_KEY_BYTES:
            raise KeysRefused(
                f"{path}, line {number}: "
                f"expected at least {MIN_KEY_BYTES} bytes ({2 * MIN_KEY_BYTES} digits), found {len(key)}"
            )
        keys.append(key)
    if not keys:
        raise KeysRefused(f"{path}: expected at least one key, found none")
    return Keys(keys)


@dataclass(frozen=True, slots=True)
class StateBinding:
    """Model, version and variant that a state token is valid for.

    Attributes:
        header: the token's header bytes, which encode all of these.
        name: model name, for error texts.
        version: model version, for error texts.
        variant: weights, for error texts.
        widths: width H of each state tensor.
        columns: number of column levels of a series, or 0 for a model of another task.
        is_stepwise: tokens hold a position and state rows alone, those of InferStream.
        has_progress: tokens are not characters, so that the progress of the text is sealed, too.
    """

    header: bytes
    name: str
    version: int
    variant: Variant
    widths: tuple[int, ...]
    columns: int
    is_stepwise: bool = False
    has_progress: bool = False

    @property
    def format(self) -> bytes:
        """The first bytes of a token."""
        return self.header[: len(_FORMAT)]

    @property
    def size(self) -> int:
        """Size of a token in bytes, the same for every token of this binding."""
        text = _PENDING.size + self.has_progress * _PROGRESS.size
        own = 0 if self.is_stepwise else 8 * self.columns if self.columns else text
        return _HEADER.size + _PLACE.size + own + 4 * sum(self.widths) + _SEAL_BYTES


def binding_of(model: ModelSpec, text: str, variant: Variant) -> StateBinding:
    """Return the binding for the state tokens of a model.

    Args:
        model: spec of a model whose steps can be given as they come.
        text: text of its model.json.
        variant: weights that are served.
    """
    columns = len(model.forecasting.columns) if model.forecasting is not None else 0
    is_stepwise = model.forecasting is None and model.generation is None
    rpc = _RPCS.index("InferStream" if is_stepwise else "ForecastStream" if columns else "Generate")
    has_progress = model.generation is not None and isinstance(model.generation.text, TokenizerFile)
    layout = _PROGRESS_FORMAT if has_progress else _FORMAT
    header = _HEADER.pack(
        layout, rpc, _VARIANTS.index(variant), _hash_of(model.name), model.version, _hash_of(text)
    )
    widths = tuple(pair.size for pair in model.network.states)
    return StateBinding(
        header, model.name, model.version, variant, widths, columns, is_stepwise, has_progress
    )


def seal_text(keys: Keys, binding: StateBinding, state: TextState) -> bytes:
    """Seal the state of a generation."""
    own = _PLACE.pack(state.position, state.seed) + _PENDING.pack(state.pending)
    if binding.has_progress:
        assert state.progress is not None, "a model of tokens has it"
        own += _packed_progress(state.progress)
    return _sealed(keys, binding, own, state.rows)


def seal_series(keys: Keys, binding: StateBinding, state: SeriesState) -> bytes:
    """Seal the state of a series."""
    return _sealed(
        keys,
        binding,
        _PLACE.pack(state.position, 0) + struct.pack(f"<{binding.columns}d", *state.levels),
        state.rows,
    )


def seal_steps(keys: Keys, binding: StateBinding, state: StepState) -> bytes:
    """Seal the state of a sequence whose steps come one after the other."""
    return _sealed(keys, binding, _PLACE.pack(state.position, 0), state.rows)


def open_text(keys: Keys, binding: StateBinding, token: bytes) -> TextState:
    """Verify a token and return the state of its generation.

    Raises:
        InvalidArgument: the token is not valid for this model; the text says why.
    """
    _check(keys, binding, token)
    position, seed = _PLACE.unpack_from(token, _HEADER.size)
    offset = _HEADER.size + _PLACE.size
    [pending] = _PENDING.unpack_from(token, offset)
    offset += _PENDING.size
    progress = None
    if binding.has_progress:
        progress = _progress(token, offset)
        offset += _PROGRESS.size
    return TextState(position, seed, pending, _rows(binding, token, offset), progress)


def open_series(keys: Keys, binding: StateBinding, token: bytes) -> SeriesState:
    """Verify a token and return the state of its series.

    Raises:
        InvalidArgument: the token is not valid for this model; the text says why.
    """
    _check(keys, binding, token)
    position, _ = _PLACE.unpack_from(token, _HEADER.size)
    offset = _HEADER.size + _PLACE.size
    levels = struct.unpack_from(f"<{binding.columns}d", token, offset)
    return SeriesState(position, levels, _rows(binding, token, offset + 8 * binding.columns))


def open_steps(keys: Keys, binding: StateBinding, token: bytes) -> StepState:
    """Verify a token and return the state of its sequence.

    Raises:
        InvalidArgument: the token is not valid for this model; the text says why.
    """
    _check(keys, binding, token)
    position, _ = _PLACE.unpack_from(token, _HEADER.size)
    return StepState(position, _rows(binding, token, _HEADER.size + _PLACE.size))


def _packed_progress(progress: TextProgress) -> bytes:
    context = progress.context
    flags = _HAS_BEGUN * context.has_begun + _IS_SPACED * bool(context.between)
    held = context.held
    return _PROGRESS.pack(flags, len(held), held, progress.prompt_tokens, progress.generated_tokens)


def _progress(token: bytes, offset: int) -> TextProgress:
    flags, size, held, prompt_tokens, generated_tokens = _PROGRESS.unpack_from(token, offset)
    between = " " if flags & _IS_SPACED else ""
    context = TextContext(bool(flags & _HAS_BEGUN), between, held[:size])
    return TextProgress(context, prompt_tokens, generated_tokens)


@lru_cache(maxsize=256)
def _hash_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_HASH_BYTES]


def _seal_of(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")


def _sealed(keys: Keys, binding: StateBinding, own: bytes, rows: StateRow) -> bytes:
    return keys.seal(
        b"".join([binding.header, own, *(row.astype("<f4", copy=False).tobytes() for row in rows)])
    )


def _rows(binding: StateBinding, token: bytes, offset: int) -> StateRow:
    whole = np.frombuffer(token, "<f4", sum(binding.widths), offset).astype(np.float32)
    return tuple(np.split(whole, np.cumsum(binding.widths)[:-1]))


def _check(keys: Keys, binding: StateBinding, token: bytes) -> None:
    """Refuse an invalid token.

    The size is checked before the seal, so that the bytes hashed are bounded by the size of this model's
    tokens, whatever a caller sends.
    """
    if token[: len(_FORMAT)] != binding.format[: len(token)]:
        _refuse(
            f"of format {binding.format!r}",
            f"one that starts with {token[: len(_FORMAT)]!r}: it is of another format, or altered",
        )
    if len(token) != binding.size:
        # A whole token of another model usually has another size, too. Report the model then, not the size.
        if len(token) > _HEADER.size:
            _check_binding(binding, token)
        kind = "truncated" if len(token) < binding.size else "too long"
        _refuse(f"of {binding.size} bytes", f"{len(token)}: it is {kind}")
    if not keys.verify(token):
        _refuse(
            "that this server can open", "one that is altered, or sealed with a key that it does not know"
        )
    _check_binding(binding, token)


def _check_binding(binding: StateBinding, token: bytes) -> None:
    _, rpc, variant, name, version, text = _HEADER.unpack_from(token)
    _, own_rpc, own_variant, own_name, own_version, own_text = _HEADER.unpack(binding.header)
    if rpc != own_rpc:
        _refuse(f"of the rpc {_RPCS[own_rpc]}", f"one of {_RPCS[rpc] if rpc < len(_RPCS) else 'another'}")
    if name != own_name:
        _refuse(f"of model {binding.name}", "one of another model")
    if version != own_version:
        _refuse(f"of version {own_version} of model {binding.name}", f"one of version {version}")
    if text != own_text:
        _refuse(
            f"of model {binding.name} version {own_version} as it is served here",
            "one of another model of that name and version",
        )
    if variant != own_variant:
        _refuse(
            f"of variant {binding.variant}",
            f"one of {_VARIANTS[variant] if variant < len(_VARIANTS) else 'another'}",
        )


def _refuse(expected: str, found: str) -> NoReturn:
    raise InvalidArgument(_FIELD, f"expected a sealed state {expected}, found {found}")
