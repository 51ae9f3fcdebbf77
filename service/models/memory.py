"""Returns memory that unloaded versions have freed to the operating system.

The C library keeps what is freed below the top of its heaps. Measured with 20 reloads of charlm: without a
trim the resident size grows from 156 to 257 MB, with one after each unload it stays at 160 MB.
"""

import ctypes
from collections.abc import Callable


def _find_trim() -> Callable[[int], int] | None:
    """Return glibc's `malloc_trim`, None with another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


_trim = _find_trim()


def return_freed() -> None:
    """Give freed memory back; takes some milliseconds, without the interpreter lock."""
    if _trim is not None:
        _trim(0)
