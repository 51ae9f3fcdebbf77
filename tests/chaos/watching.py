"""What a server process holds, seen from outside."""

import asyncio
import re
import urllib.request
from pathlib import Path

from tests.integration.process import ServerProcess

_PAGE_BYTES = 4096


def resident_bytes(server: ServerProcess) -> int:
    """Memory of its own."""
    return int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def reset_peak(server: ServerProcess) -> None:
    """Let `peak_bytes` begin anew."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")


def peak_bytes(server: ServerProcess) -> int:
    """Return the most memory that it has had at a time."""
    text = Path(f"/proc/{server.pid}/status").read_text()
    [kibibytes] = re.findall(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
    return int(kibibytes) << 10


def open_files(server: ServerProcess) -> int:
    """File descriptors."""
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def threads(server: ServerProcess) -> int:
    """Threads of the process."""
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


async def metrics(server: ServerProcess) -> dict[str, float]:
    """Every sample by its whole name with labels."""

    def fetch() -> str:
        with urllib.request.urlopen(f"{server.http}/metrics") as response:  # noqa: S310 - loopback
            return str(response.read().decode())

    text = await asyncio.to_thread(fetch)
    return {
        name: float(value)
        for name, value in re.findall(r"^(seqserve_\S+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
    }


async def until_idle(server: ServerProcess) -> None:
    """Wait until no sequence of any model is active or waiting."""
    async with asyncio.timeout(30):
        while any(  # noqa: ASYNC110 - another process has no event to await
            value
            for name, value in (await metrics(server)).items()
            if name.startswith(("seqserve_active_seq", "seqserve_waiting_seq"))
        ):
            await asyncio.sleep(0.05)
