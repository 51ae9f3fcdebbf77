"""The reference of the command `seqserve`: the help of each of its commands, as `--help` prints it."""

from collections.abc import Iterator
from typing import Any, Final

from typer import Context
from typer.main import get_command

from seqserve.cli.app import app

PATH: Final = "reference/command.md"
_PROGRAM: Final = "seqserve"
_WIDTH: Final = 100

_HEAD: Final = """# The command seqserve
What `--help` prints of each command. `make serve` and `make install` put the command into `.venv/bin`. Calls with their answers are in
[sequences.md](../sequences.md), and `seqserve bench` has a page of its own, [load-testing.md](../load-testing.md)."""  # noqa: E501


def page() -> str:
    """Return the page: a heading and the help for the program and each of its commands."""
    return "\n\n".join([_HEAD, *_helps()]) + "\n"


def _helps() -> Iterator[str]:
    group: Any = get_command(app)
    context = Context(group, info_name=_PROGRAM, terminal_width=_WIDTH, **group.context_settings)
    yield _help(group, context)
    for name, command in group.commands.items():
        inner = Context(
            command, info_name=name, parent=context, terminal_width=_WIDTH, **group.context_settings
        )
        yield f"## {_PROGRAM} {name}"
        yield _help(command, inner)


def _help(command: Any, context: Context) -> str:
    return f"```text\n{command.get_help(context)}\n```"
