"""The commands of a page in one shell, in a folder that looks like the repository's and is none."""

import asyncio
import os
import platform
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.integration.process import ROOT

_LIMIT_S: Final = 500
_TOOLS: Final = ROOT / ".venv-grpcurl/bin"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did: its exit status, and all that it wrote."""

    status: int
    output: str


def search_path(folder: Path) -> str:
    """Where commands are looked for: what is installed here, and grpcurl where `make test` puts it, which is
    a program for one kind of machine.
    """
    packed = [str(_TOOLS)] if (platform.system(), platform.machine()) == ("Linux", "x86_64") else []
    return os.pathsep.join([str(folder / ".venv/bin"), os.environ["PATH"], *packed])


def is_installed(tool: str) -> bool:
    """Whether the shell would find it."""
    return shutil.which(tool, path=search_path(ROOT)) is not None


def make_folder(folder: Path, server: str) -> None:
    """Everything of the repository under its own name but runs, so that files that commands write stay here;
    `seqserve` talks to the server given.
    """
    binaries = folder / ".venv/bin"
    binaries.mkdir(parents=True)
    for one in [*(ROOT / ".venv").iterdir(), *(ROOT / ".venv/bin").iterdir()]:
        if one.name not in ("bin", "seqserve"):
            (folder / one.relative_to(ROOT)).symlink_to(one)
    call_server(folder, server)
    for one in ROOT.iterdir():
        if one.name not in (".venv", ".git", "runs"):
            (folder / one.name).symlink_to(one)


def call_server(folder: Path, server: str) -> None:
    """Let `seqserve` talk to that server from now on."""
    command = folder / ".venv/bin/seqserve"
    command.write_text(f'#!/bin/sh\nexec "{ROOT}/.venv/bin/seqserve" --server "{server}" "$@"\n')
    command.chmod(0o755)


async def run_all(
    texts: Sequence[str], folder: Path, addresses: Mapping[str, str], environment: Mapping[str, str]
) -> list[Outcome]:
    """Run commands one after the other in the same shell.

    Args:
        texts: of the commands.
        folder: where.
        addresses: what is put in place of addresses that the pages name.
        environment: variables beside PATH.
    """
    mark = f"@@@{uuid.uuid4().hex}"
    lines = ["exec 2>&1"]
    for text in texts:
        for named, actual in addresses.items():
            text = text.replace(named, actual)  # noqa: PLW2901 - each replacement builds on the one before
        lines += [text, f"printf '\\n{mark} %d\\n' $?"]
    given = {
        "PATH": search_path(folder),
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        **environment,
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", "\n".join(lines), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, cwd=folder, env=given
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            written, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    parts = re.split(rf"\n{mark} (\d+)\n", written.decode(errors="backslashreplace"))
    outcomes = [
        Outcome(int(status), output) for output, status in zip(parts[0::2], parts[1::2], strict=False)
    ]
    assert len(outcomes) == len(texts), f"the shell ended early: {parts[-1]}"
    return outcomes
