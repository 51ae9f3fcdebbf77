"""`seqserve models` lists or shows model versions; `seqserve load` and `unload` change what is served."""

from dataclasses import asdict
from typing import Annotated, TypeAlias

import typer

from seqserve.cli.describing import command, sentence
from seqserve.cli.output import escape_controls
from seqserve.cli.session import JsonOption, ModelVersion, ServerOption, TimeoutOption, print_json, session
from seqserve.cli.tables import Column, has_wide_terminal, print_table
from seqserve.results import ModelInfo

ModelName: TypeAlias = Annotated[str, typer.Argument(help="Name of the model.", show_default=False)]

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
    name: Annotated[str | None, typer.Argument(help="Show this model in detail.", show_default=False)] = None,
    version: ModelVersion = 0,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the model versions, or show one: what to send, what comes back, and its figures.

    The figures include metrics on held-out data. With --json, the details of one include its model.json.
    """
    with session(context, server, timeout, as_json) as current:
        if name is not None:
            _show(current.client.model(name, version), current.as_json)
            return
        known = current.client.models()
        if current.as_json:
            for model in known:
                print_json({key: value for key, value in asdict(model).items() if key != "spec"})
        else:
            print_table(_COLUMNS, map(_row, known))


def load(
    context: typer.Context,
    *,
    name: ModelName,
    version: Annotated[
        int,
        typer.Option(
            "--version",
            min=0,
            max=2**32 - 1,
            help="Version of the model; 0 means the newest on the server's disk.",
        ),
    ] = 0,
    allow_interface_change: Annotated[
        bool,
        typer.Option(
            "--allow-interface-change",
            help="Load it even if it takes or gives something else (columns, labels, vocabulary) than the "
            "version that serves.",
        ),
    ] = False,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load a version: check it, serve it and show it. Needs a token with the admin right."""
    with session(context, server, timeout, as_json) as current:
        loaded = current.client.load_model(name, version, allow_interface_change=allow_interface_change)
        _show(loaded, current.as_json)


def unload(
    context: typer.Context,
    *,
    name: ModelName,
    version: ModelVersion = 0,
    server: ServerOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop serving a version, and wait until its requests in flight have finished.

    Needs a token with the admin right.
    """
    with session(context, server, timeout, as_json) as current:
        current.client.unload_model(name, version)


def _show(model: ModelInfo, as_json: bool) -> None:
    if as_json:
        print_json(asdict(model))
        return
    told = [(name, text) for name, text in (("about", sentence(model)), ("try", command(model))) if text]
    if has_wide_terminal():
        for name, text in told:
            typer.echo(escape_controls(text if name == "about" else f"Try: {text}"))
        told = []
    print_table((Column("property"), Column("value")), [*told, *_details(model)])


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
        ("kind", model.kind),
        ("layers", _layers(model)),
        ("hidden", str(model.hidden)),
        ("variant", model.variant),
        ("provider", model.provider),
        ("source", model.source),
        ("batch invariant", "yes" if model.batch_invariant else "no"),
        ("golden max error", f"{model.golden_max_error:.3g}"),
        *([("verdict", told)] if (told := _verdict(model)) else []),
        *((f"metric {name}", f"{value:.6g}") for name, value in sorted(model.metrics.items())),
    ]


def _verdict(model: ModelInfo) -> str:
    """Return whether the model beats its baselines, as its training found; empty where it did not say."""
    match model.metrics.get("beats_baselines"):
        case None:
            return ""
        case 0:
            return "does not beat its baselines"
        case _:
            return "beats its baselines"


def _layers(model: ModelInfo) -> str:
    """Return the number of layers, and each of them where they are not all of one kind and width."""
    each = [f"{'2 x ' if one.bidirectional else ''}{one.kind} {one.width}" for one in model.layer_info]
    is_plain = len(set(each)) <= 1 and not any(one.bidirectional for one in model.layer_info)
    return str(model.layers) if is_plain else f"{model.layers}: {', '.join(each)}"


def _size(model: ModelInfo) -> str:
    return f"{model.layers}x{model.hidden}" if model.layers else ""
