"""`seqserve models`: what the server knows, as a list or one in detail."""

from dataclasses import asdict
from typing import Annotated

import typer

from seqserve.cli.session import JsonOption, ModelVersion, ServerOption, TimeoutOption, print_json, session
from seqserve.cli.tables import Column, print_table
from seqserve.results import ModelInfo

_COLUMNS = (
    Column("name"),
    Column("version", is_number=True),
    Column("status"),
    Column("task"),
    Column("cell"),
    Column("size"),
    Column("variant"),
    Column("provider"),
    Column("message"),
)


def models(
    context: typer.Context,
    *,
    name: Annotated[str | None, typer.Argument(help="Show this one in detail.", show_default=False)] = None,
    version: ModelVersion = 0,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models, or show one in detail, held-out metrics included; --json of one includes its model.json."""
    with session(context, server, timeout, as_json) as current:
        if name is not None:
            model = current.client.model(name, version)
            if current.as_json:
                print_json(asdict(model))
            else:
                print_table((Column("property"), Column("value")), _details(model))
            return
        known = current.client.models()
        if current.as_json:
            for model in known:
                print_json({key: value for key, value in asdict(model).items() if key != "spec"})
        else:
            print_table(_COLUMNS, map(_row, known))


def _row(model: ModelInfo) -> tuple[str, ...]:
    return (
        model.name,
        str(model.version),
        model.status,
        model.task,
        model.cell,
        _size(model),
        model.variant,
        model.provider.removesuffix("ExecutionProvider"),
        model.message,
    )


def _details(model: ModelInfo) -> list[tuple[str, str]]:
    return [
        ("name", model.name),
        ("version", str(model.version)),
        ("status", model.status),
        ("message", model.message),
        ("task", model.task),
        ("cell", model.cell),
        ("layers", str(model.layers)),
        ("hidden", str(model.hidden)),
        ("variant", model.variant),
        ("provider", model.provider),
        ("batch invariant", "yes" if model.batch_invariant else "no"),
        ("golden max error", f"{model.golden_max_error:.3g}"),
        *((f"metric {name}", f"{value:.6g}") for name, value in sorted(model.metrics.items())),
    ]


def _size(model: ModelInfo) -> str:
    return f"{model.layers}x{model.hidden}" if model.layers else ""
