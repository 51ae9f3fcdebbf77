"""`make chaos`: every fault at full size, and a table of what was lost."""

import asyncio
import json
import string
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from service.contract.extras import require

require("python -m tests.chaos", "dev")

import typer
from rich.console import Console
from rich.table import Table

from seqserve.aio import AsyncClient
from tests.chaos.crowd import crowd
from tests.chaos.hostile.plan import hostile
from tests.chaos.kills import kill_replicas
from tests.chaos.outcome import Outcome
from tests.chaos.overload import overload
from tests.chaos.readers import stop_reading
from tests.chaos.reloads import reload_versions
from tests.chaos.rolling import restart_replicas
from tests.chaos.soak import soak
from tests.chaos.storm import storm
from tests.integration.process import ROOT
from tests.tiny import export_all

SHIPPED = ROOT / "exported"
ALPHABET = string.ascii_letters + " "
RESULTS = ROOT / "runs" / "chaos"
FILM = ["a gripping, tender film"]


async def _classify(client: AsyncClient) -> object:
    return await client.classify(FILM, model="sentiment")


def faults(tiny: Path, fresh: Path) -> dict[str, Callable[[], Coroutine[Any, Any, Outcome]]]:
    """Every fault by name.

    Args:
        tiny: folder of the tiny models.
        fresh: an empty folder, for models that come and go.
    """
    return {
        "kills": lambda: kill_replicas(SHIPPED, "charlm", streams=32, max_tokens=1500, kills=12, seed=1),
        "rolling": lambda: restart_replicas(SHIPPED, "charlm", _classify, rounds=3, max_tokens=3000),
        "overload": lambda: overload(SHIPPED, "charlm", ALPHABET, (50, 600), times=5, calm_s=10, seconds=30),
        "crowd": lambda: crowd(SHIPPED, "charlm", "To be, or not to be", many=1000, tries=50),
        "readers": lambda: stop_reading(SHIPPED, "charlm", readers=16, max_tokens=1000),
        "reloads": lambda: reload_versions(fresh, reloads=20),
        "storm": lambda: storm(SHIPPED, "charlm", connections=200, seconds=120, alphabet=ALPHABET),
        "storm400": lambda: storm(SHIPPED, "charlm", connections=400, seconds=60, alphabet=ALPHABET),
        "soak": lambda: soak(tiny, requests=50_000, warm=5_000),
        **hostile(SHIPPED),
    }


def main(
    only: Annotated[str, typer.Option(help="Names of faults, comma separated; all where not given.")] = "",
) -> None:
    """Do every fault to real servers and say what was lost. Ends with status 1 if anything was."""
    console = Console()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        tiny, fresh = Path(folder, "tiny"), Path(folder, "fresh")
        tiny.mkdir()
        fresh.mkdir()
        export_all(tiny)
        known = faults(tiny, fresh)
        unknown = sorted({*only.split(",")} - {*known}) if only else []
        if unknown:
            raise typer.BadParameter(
                f"expected names among {', '.join(known)}, found {', '.join(unknown)}", param_hint="--only"
            )
        for name in only.split(",") if only else known:
            with console.status(name):
                outcome = asyncio.run(known[name]())
            outcomes.append(outcome)
            console.print(
                f"{name}: {outcome.tried} tried, {len(outcome.lost)} lost, "
                f"slowest {outcome.recovery_s:.2f} s {outcome.facts}"
            )
            for line in outcome.lost[:10]:
                console.print(f"  {line}", style="red", markup=False)
    console.print(_table(outcomes))
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps([asdict(one) for one in outcomes], indent=1))
    raise typer.Exit(int(any(one.lost for one in outcomes)))


def _table(outcomes: list[Outcome]) -> Table:
    table = Table("fault", "times", "under", "lost", "slowest, s", "measured")
    for one in outcomes:
        facts = "\n".join(f"{name}: {value:.4g}" for name, value in one.facts.items())
        table.add_row(
            one.fault, f"{one.tried:,}", one.load, str(len(one.lost)), f"{one.recovery_s:.2f}", facts
        )
    return table


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(main)

if __name__ == "__main__":
    app()
