"""Every fault of tests/chaos at a small size: real servers, and nothing lost."""

from pathlib import Path

import pytest

from seqserve.aio import AsyncClient
from tests.chaos.crowd import crowd
from tests.chaos.hostile.siege import besiege
from tests.chaos.kills import kill_replicas
from tests.chaos.overload import overload
from tests.chaos.readers import stop_reading
from tests.chaos.reloads import reload_versions
from tests.chaos.rolling import restart_replicas
from tests.chaos.soak import soak
from tests.chaos.storm import storm
from tests.integration.process import ROOT

# About a thousand characters a second for each stream: a text lasts for seconds and leaves the machine to the
# replicas that start again.
PACED = {"STREAM_INTERVAL_MS": "50", "STREAM_BUFFER": "50"}


async def _score(client: AsyncClient) -> object:
    return await client.score(["abcabc"], model="letters")


async def test_streams_outlive_killed_replicas_character_by_character(letters_repository: Path) -> None:
    outcome = await kill_replicas(
        letters_repository,
        "letters",
        streams=32,
        max_tokens=3_000,
        kills=3,
        seed=1,
        alphabet="abcdefgh",
        settings=PACED,
    )
    assert outcome.lost == ()


async def test_rolling_restart_loses_no_request(letters_repository: Path) -> None:
    outcome = await restart_replicas(
        letters_repository,
        "letters",
        _score,
        rounds=1,
        max_tokens=3_000,
        alphabet="abcdefgh",
        settings=PACED,
    )
    assert outcome.lost == ()
    assert outcome.tried == 3


async def test_overloaded_server_does_what_it_can_and_refuses_the_rest() -> None:
    # The tiny model's work is less than what reading a request takes, so overload would not be of the engine.
    outcome = await overload(
        ROOT / "exported", "charlm", "abcdefgh ", (50, 600), times=5, calm_s=3, seconds=5
    )
    assert outcome.lost == ()
    assert (
        outcome.facts["goodput / capacity"] > 0.6
    )  # a short run on a shared machine; `make chaos` looks closer
    assert outcome.facts["refused at once (RESOURCE_EXHAUSTED)"] > 0
    assert outcome.recovery_s < 1


async def test_one_caller_does_not_starve_another(letters_repository: Path) -> None:
    outcome = await crowd(letters_repository, "letters", "abcdefgh", many=600, tries=10)
    assert outcome.lost == ()
    assert outcome.recovery_s < 2


async def test_callers_who_never_read_do_not_hold_up_others(letters_repository: Path) -> None:
    outcome = await stop_reading(
        letters_repository, "letters", readers=8, max_tokens=5_000, alphabet="abcdefgh"
    )
    assert outcome.lost == ()
    assert outcome.facts["tokens generated for those who never read, each"] < 20_000


@pytest.mark.parametrize("reloads", [6])
async def test_replaced_versions_answer_every_request(tmp_path: Path, reloads: int) -> None:
    outcome = await reload_versions(tmp_path, reloads)
    assert outcome.lost == ()
    assert outcome.facts["versions that answered"] == outcome.facts["good versions"]


async def test_storm_of_short_generations_gets_every_text_right() -> None:
    outcome = await storm(ROOT / "exported", "charlm", connections=100, seconds=12, alphabet="abcdefghijkl")
    assert outcome.lost == ()
    assert outcome.facts["answered"] > 600
    assert outcome.facts["memory growth, MiB"] < 100


async def test_soaked_server_holds_nothing_it_does_not_need(tiny_repository: Path) -> None:
    outcome = await soak(tiny_repository, requests=3_000, warm=1_500)
    assert outcome.lost == ()
    assert outcome.facts["file descriptors gained"] <= 0
    assert outcome.facts["threads gained"] <= 0
    assert outcome.facts["memory growth, %"] < 10  # a short run, still warming up; `make chaos` looks closer


@pytest.mark.parametrize("name", ["odd-paths", "empty-fields"])
async def test_newcomers_and_probes_notice_nothing_of_hostile_peers(name: str) -> None:
    outcome = await besiege(name, ROOT / "exported", "sentiment", limit_s=10)  # `make chaos` allows a second
    assert outcome.lost == ()
    assert outcome.tried > 2
