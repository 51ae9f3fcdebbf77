"""Reads the choices of versions that were made before provenance carried them, from their command lines.

It knows the options that the commands had then, and learns no new ones.
"""

import argparse
import shlex

from seqserve.tables.files import UTF8
from seqserve.tables.rows import TAB
from training.evaluate.scorer import Choices

# The recipe of each command by task, and the option that its file is given by in the recipe's own command.
_TASKS = {
    "generate": ("charlm", "--text"),
    "classify": ("sentiment", "--csv"),
    "forecast": ("stock", "--csv"),
}


def choices_of(command_line: str) -> Choices:
    """Return the choices of a version by `provenance.recipe`; {}: it is none of this program's."""
    words = shlex.split(command_line)
    if words[:3] != ["python", "-m", "training"] or len(words) < 4:
        return {}
    recipe, *arguments = words[3:]
    by_task = recipe in _TASKS
    if by_task:
        recipe, option = _TASKS[recipe]
        arguments = [option, *arguments]
    options = _parser().parse_known_args(arguments)[0]
    file = options.text or options.csv
    return {
        "recipe": recipe,
        "source": "own" if file else "shipped",
        "file": file or "",
        "more": options.more,
        "encoding": options.encoding,
        "delimiter": "\t" if options.delimiter == TAB else options.delimiter,
        "text_column": options.text_column,
        "label_column": options.label_column,
        "columns": options.columns or (options.target if by_task else "open,high,low,close,volume"),
        "target": options.target,
        "prices": options.price_columns,
        "dates": options.date_column,
        "date_format": options.date_format,
        "gaps": options.gaps,
        "held_out_from": options.held_out_from,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    defaults = {
        "--encoding": UTF8,
        "--text-column": "text",
        "--label-column": "label",
        "--target": "close",
        "--date-column": "date",
        "--gaps": "refuse",
    }
    others = ("--text", "--csv", "--more", "--columns", "--price-columns", "--delimiter")
    for name in (*defaults, *others, "--date-format", "--held-out-from"):
        parser.add_argument(name, default=defaults.get(name, ""))
    return parser
