"""Decompression of request bodies, slice by slice, so that no body becomes larger than is asked for."""

import zlib
from collections.abc import AsyncIterator
from typing import Final

from service.errors import InvalidArgument

CODINGS: Final = ("gzip", "x-gzip", "deflate")
# Takes the formats of zlib and gzip, whichever comes.
_ANY_WINDOW: Final = zlib.MAX_WBITS | 32
_SLICE_BYTES: Final = 1 << 16


async def decompressed(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what compressed parts decompress to, at most 64 KiB at once.

    Raises:
        InvalidArgument: the data are in neither format, end early or go on after their end.
    """
    decompressor = zlib.decompressobj(_ANY_WINDOW)
    async for part in parts:
        while part:
            if decompressor.eof:
                raise _refused("found bytes after its end")
            try:
                data = decompressor.decompress(part, _SLICE_BYTES)
            except zlib.error:
                data = None
            if data is None:  # outside of the handler: the error of zlib would be the context
                raise _refused("found other bytes")
            yield data
            part = decompressor.unconsumed_tail or decompressor.unused_data  # noqa: PLW2901 -- what is left
    if not decompressor.eof:
        raise _refused("found its beginning alone")


def _refused(found: str) -> InvalidArgument:
    return InvalidArgument("body", f"expected a body in the format of its Content-Encoding, {found}")
