"""The command line of the settings: a help text that gives each default once, and flags that do not exist.

pydantic-settings names Python's types in the help text, and the default None beside what a description says.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliSettingsSource

from service.contract.sentences import meant

_FLAG = "--"
# Variables of the same prefix that the command `seqserve` reads; the server leaves them alone.
OF_THE_COMMAND = ("SERVER",)
HELP = "python -m service --help lists the settings"
# What stands for a value, by what pydantic-settings would write.
_VALUES = {"str": "TEXT", "Path": "PATH", "int": "N", "float": "NUMBER", "bool": "{true,false}"}


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return _FLAG + name.replace("_", "-")


def source_of(settings: type[BaseSettings]) -> CliSettingsSource[Any]:
    """Return the source that parses the flags of the settings and prints their help text."""
    source: CliSettingsSource[Any] = CliSettingsSource(settings)
    for action in source.root_parser._actions:
        field = settings.model_fields.get(action.dest)
        if field is not None:
            action.help = _help(field).replace("%", "%%")
            action.metavar = _VALUES.get(action.metavar, action.metavar)
    return source


def unknown_variables(environment: Iterable[str], prefix: str, names: Sequence[str]) -> list[str]:
    """Return a line for each variable with the prefix that is neither a named setting nor the command's."""
    known = [name.upper() for name in names]
    others = [(name, name.upper().removeprefix(prefix)) for name in sorted(environment) if _has(name, prefix)]
    return [
        _unknown(given, name, known, prefix)
        for given, name in others
        if name not in (*known, *OF_THE_COMMAND)
    ]


def unknown_flags(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return a line for each flag among the arguments that belongs to none of the named settings."""
    known = [flag_of(name).removeprefix(_FLAG) for name in (*names, "help")]
    given = [argument.partition("=")[0] for argument in arguments if argument.startswith(_FLAG)]
    others = [(flag, flag.removeprefix(_FLAG).lower()) for flag in given]
    return [_unknown(flag, name, known, _FLAG) for flag, name in others if name not in known]


def _has(name: str, prefix: str) -> bool:
    return name.upper().startswith(prefix)


def _unknown(given: str, name: str, known: Sequence[str], prefix: str) -> str:
    """Return a line about a setting that does not exist: the settings most like it, or where all are listed.

    The prefix, which all have, is no part of the likeness.
    """
    return f"{given}: no such setting{meant(name, known, prefix) or f'; {HELP}'}"


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    default = field.default
    if field.default_factory is not None or default is None or "(default:" in text:
        return text
    shown = (
        str(default).lower()
        if isinstance(default, bool)
        else f"{default:g}"
        if isinstance(default, float)
        else default
    )
    return f"{text} (default: {shown})"
