"""Sealed states: what continues a sequence, as bytes that any server with the key opens and nobody without it
can make.

    format | rpc | variant | model's name, hashed | version | model.json, hashed | position | seed | what the
    rpc needs | state | seal

Numbers are little-endian. The seal is HMAC-SHA256 over everything before it. A state is neither secret nor
stored: callers keep it.
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

from service.contract.spec import ModelSpec, Variant
from service.engine.sequence import StateRow
from service.errors import InvalidArgument

LEAST_KEY_BYTES = 32
_FORMAT = b"SQS\x01"
_SEAL_BYTES = 32
_HASH_BYTES = 16
_RPCS = ("Generate", "ForecastStream")
_VARIANTS: tuple[Variant, ...] = ("fp32", "int8")
_HEADER = struct.Struct(f"<4sBB{_HASH_BYTES}sI{_HASH_BYTES}s")
_PLACE = struct.Struct("<QQ")
_PENDING = struct.Struct("<I")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_FIELD = "state"


class KeysRefused(Exception):
    """The file of keys is not usable; the text names the file and the line, never a key."""


class Keys:
    """Keys of seals.

    Args:
        keys: at least one: the first seals, all open.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        assert keys, "something has to seal"
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"Keys({len(self._keys)} hidden)"

    def seal(self, body: bytes) -> bytes:
        """The body with its seal."""
        return body + _seal_of(self._keys[0], body)

    def have_sealed(self, token: bytes) -> bool:
        """Whether one of the keys has sealed these bytes."""
        body, seal = token[:-_SEAL_BYTES], token[-_SEAL_BYTES:]
        return any(hmac.compare_digest(_seal_of(key, body), seal) for key in self._keys)


def draw_keys() -> Keys:
    """A key that nobody else has, and that is gone with this process."""
    return Keys([secrets.token_bytes(LEAST_KEY_BYTES)])


def read_keys(path: Path) -> Keys:
    """Keys from a file: hexadecimal, one a line; blank lines and those that start with # are left out.

    Raises:
        KeysRefused: there is no such file, no key in it, or a line that is none.
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
        # Neither the line nor anything of it may end up in a log.
        if not _HEX.fullmatch(text):
            raise KeysRefused(
                f"{path}, line {number}: expected an even number of hexadecimal digits, found something else"
            )
        key = bytes.fromhex(text)
        if len(key) < LEAST_KEY_BYTES:
            raise KeysRefused(
                f"{path}, line {number}: expected at least {LEAST_KEY_BYTES} bytes ({2 * LEAST_KEY_BYTES} digits), found {len(key)}"
            )
        keys.append(key)
    if not keys:
        raise KeysRefused(f"{path}: expected at least one key, found none")
    return Keys(keys)


@dataclass(frozen=True, slots=True)
class TextState:
    """Where a generation stands.

    Attributes:
        position: tokens of the sequence so far, the pending one included.
        seed: of its sampling.
        pending: the last token, which the network has not seen yet.
        rows: state before the pending token.
    """

    position: int
    seed: int
    pending: int
    rows: StateRow


@dataclass(frozen=True, slots=True)
class SeriesState:
    """Where a series stands.

    Attributes:
        position: observations so far.
        levels: of all columns, after the last observation.
        rows: state after the last observation.
    """

    position: int
    levels: Sequence[float]
    rows: StateRow


@dataclass(frozen=True, slots=True)
class Bound:
    """What a state is bound to: it says nothing to any other model, version or variant.

    Attributes:
        header: the bytes that say so.
        name, version, variant: the same, for error texts.
        widths: of the state tensors.
        columns: levels of a series; 0: the model generates text.
    """

    header: bytes
    name: str
    version: int
    variant: Variant
    widths: tuple[int, ...]
    columns: int

    @property
    def size(self) -> int:
        """Bytes of a sealed state, always so many."""
        own = 8 * self.columns if self.columns else _PENDING.size
        return _HEADER.size + _PLACE.size + own + 4 * sum(self.widths) + _SEAL_BYTES


def bound_to(model: ModelSpec, text: str, variant: Variant) -> Bound:
    """What states of a model are bound to.

    Args:
        model: that generates text or forecasts.
        text: of its model.json.
        variant: of its weights.
    """
    columns = len(model.forecasting.columns) if model.forecasting is not None else 0
    rpc = _RPCS.index("ForecastStream" if columns else "Generate")
    header = _HEADER.pack(
        _FORMAT, rpc, _VARIANTS.index(variant), _hash_of(model.name), model.version, _hash_of(text)
    )
    return Bound(
        header, model.name, model.version, variant, tuple(pair.size for pair in model.state), columns
    )


def seal_text(keys: Keys, bound: Bound, state: TextState) -> bytes:
    """A sealed state of a generation."""
    return _sealed(
        keys, bound, _PLACE.pack(state.position, state.seed) + _PENDING.pack(state.pending), state.rows
    )


def seal_series(keys: Keys, bound: Bound, state: SeriesState) -> bytes:
    """A sealed state of a series."""
    return _sealed(
        keys,
        bound,
        _PLACE.pack(state.position, 0) + struct.pack(f"<{bound.columns}d", *state.levels),
        state.rows,
    )


def open_text(keys: Keys, bound: Bound, token: bytes) -> TextState:
    """The state of a generation.

    Raises:
        InvalidArgument: the token is not one of this model's; the text says why.
    """
    _check(keys, bound, token)
    position, seed = _PLACE.unpack_from(token, _HEADER.size)
    offset = _HEADER.size + _PLACE.size
    return TextState(
        position, seed, _PENDING.unpack_from(token, offset)[0], _rows(bound, token, offset + _PENDING.size)
    )


def open_series(keys: Keys, bound: Bound, token: bytes) -> SeriesState:
    """The state of a series.

    Raises:
        InvalidArgument: the token is not one of this model's; the text says why.
    """
    _check(keys, bound, token)
    position, _ = _PLACE.unpack_from(token, _HEADER.size)
    offset = _HEADER.size + _PLACE.size
    levels = struct.unpack_from(f"<{bound.columns}d", token, offset)
    return SeriesState(position, levels, _rows(bound, token, offset + 8 * bound.columns))


@lru_cache(maxsize=256)
def _hash_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:_HASH_BYTES]


def _seal_of(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")


def _sealed(keys: Keys, bound: Bound, own: bytes, rows: StateRow) -> bytes:
    return keys.seal(
        b"".join([bound.header, own, *(row.astype("<f4", copy=False).tobytes() for row in rows)])
    )


def _rows(bound: Bound, token: bytes, offset: int) -> StateRow:
    whole = np.frombuffer(token, "<f4", sum(bound.widths), offset).astype(np.float32)
    return tuple(np.split(whole, np.cumsum(bound.widths)[:-1]))


def _check(keys: Keys, bound: Bound, token: bytes) -> None:
    """The size comes first: what is hashed is as long as this model's states are, whatever a caller sends."""
    if token[: len(_FORMAT)] != _FORMAT[: len(token)]:
        _refuse(
            f"of format {_FORMAT!r}",
            f"one that starts with {token[: len(_FORMAT)]!r}: it is of another format, or altered",
        )
    if len(token) != bound.size:
        # A whole state of another model is as a rule of another size, too; then the size is not what is wrong
        # with it.
        if len(token) > _HEADER.size:
            _check_binding(bound, token)
        kind = "truncated" if len(token) < bound.size else "too long"
        _refuse(f"of {bound.size} bytes", f"{len(token)}: it is {kind}")
    if not keys.have_sealed(token):
        _refuse(
            "that this server can open", "one that is altered, or sealed with a key that it does not know"
        )
    _check_binding(bound, token)


def _check_binding(bound: Bound, token: bytes) -> None:
    _, rpc, variant, name, version, text = _HEADER.unpack_from(token)
    _, own_rpc, own_variant, own_name, own_version, own_text = _HEADER.unpack(bound.header)
    if rpc != own_rpc:
        _refuse(f"of the rpc {_RPCS[own_rpc]}", f"one of {_RPCS[rpc] if rpc < len(_RPCS) else 'another'}")
    if name != own_name:
        _refuse(f"of model {bound.name}", "one of another model")
    if version != own_version:
        _refuse(f"of version {own_version} of model {bound.name}", f"one of version {version}")
    if text != own_text:
        _refuse(
            f"of model {bound.name} version {own_version} as it is served here",
            "one of another model of that name and version",
        )
    if variant != own_variant:
        _refuse(
            f"of variant {bound.variant}",
            f"one of {_VARIANTS[variant] if variant < len(_VARIANTS) else 'another'}",
        )


def _refuse(expected: str, found: str) -> NoReturn:
    raise InvalidArgument(_FIELD, f"expected a sealed state {expected}, found {found}")
