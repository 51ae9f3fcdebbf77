"""service.models.trial: children that behave, crash, hang and grow."""

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.contract import spec
from service.errors import ModelRefused
from service.models import trial
from service.models.trial import Trial
from tests.service.builders import replace_file, settings_of


@pytest.fixture
def version(models: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models / "moods" / "1", tmp_path / "repository" / "moods" / "1")


def trial_of(folder: Path, **changes: Any) -> Trial:
    return Trial(settings_of(folder.parents[1], **changes))


def refusal_of(folder: Path, **changes: Any) -> ModelRefused:
    with pytest.raises(ModelRefused) as refusal:
        trial_of(folder, **changes).run(folder)
    return refusal.value


def run_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Have another program stand in for the child."""
    program = tmp_path / "child"
    program.write_text(f"#!{sys.executable}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("service.models.trial.sys.executable", str(program))


@pytest.mark.parametrize("name", ["letters", "moods", "prices"])
def test_good_version_passes_and_is_told_by_its_hash(models: Path, name: str) -> None:
    folder = models / name / "1"
    assert trial_of(folder).run(folder) == trial.check(folder, "fp32", 4)


def test_check_that_failed_is_told_as_it_would_be_without_the_trial(version: Path) -> None:
    replace_file(version, "model.onnx", b"spoilt")
    refusal = refusal_of(version)
    assert refusal.check == "graph"
    with pytest.raises(ModelRefused) as direct:
        trial.check(version, "fp32", 4)
    assert str(direct.value) == str(refusal)


def test_wrong_hash_is_told_as_the_spec_has_it(version: Path) -> None:
    (version / "model.onnx").write_bytes(b"spoilt")
    with pytest.raises(spec.SpecError, match=r"sha256 of model\.onnx"):
        trial_of(version).run(version)


def test_too_little_memory_is_refused(version: Path) -> None:
    message = str(refusal_of(version, admission_bytes=1 << 28))
    assert message.startswith(
        "check 'trial' failed: expected a version that loads and answers "
        "its golden examples within 60 s and 268435456 bytes, found"
    )


def test_crash_is_refused_with_its_signal(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert "found its process ended by SIGSEGV" in str(refusal_of(version))


def test_error_that_nobody_foresaw_is_refused_with_its_last_words(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, tmp_path, "raise SystemExit('surprise')")
    assert "found its process ended with status 1: surprise" in str(refusal_of(version))


def test_hang_is_ended_and_refused(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(monkeypatch, tmp_path, "import time; time.sleep(60)")
    started = time.monotonic()
    assert "found no end within that time" in str(refusal_of(version, admission_seconds=0.3))
    assert time.monotonic() - started < 10


async def test_stop_ends_a_trial_that_is_under_way(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    run_instead(monkeypatch, tmp_path, f"import time; open({str(begun)!r}, 'w').close(); time.sleep(60)")
    running = trial_of(version)
    ending = asyncio.create_task(asyncio.to_thread(running.run, version))
    async with asyncio.timeout(10):
        await asyncio.to_thread(begun.read_bytes)
        running.stop()
        with pytest.raises(ModelRefused, match="SIGKILL"):
            await ending
    with pytest.raises(ModelRefused, match="being stopped"):
        running.run(version)
