"""service.models.trial: children that behave, crash, hang and grow."""

import asyncio
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from service.contract import spec
from service.errors import ModelRefused
from service.models.choices import Choices
from service.models.preparing import Preparation
from service.models.trial import Trial
from service.signals import STOP_SIGNALS
from tests.service.builders import edit_graph, replace_file, settings_of, spec_of
from tests.service.models.slow_graphs import grow_above, loop_above, recurrence_in_the_head


@pytest.fixture
def version(models: Path, tmp_path: Path) -> Path:
    return shutil.copytree(models / "moods" / "1", tmp_path / "repository" / "moods" / "1")


def trial_of(folder: Path, **changes: Any) -> Trial:
    return Trial(settings_of(folder.parents[1], **changes))


def refusal_of(folder: Path, **changes: Any) -> ModelRefused:
    trial = trial_of(folder, **changes)
    with pytest.raises(ModelRefused) as refusal:
        trial.run(folder)
    trial.close()
    return refusal.value


def child_of(trial: Trial) -> "subprocess.Popen[bytes]":
    assert trial._child is not None
    return trial._child._process


def is_running(pid: int) -> bool:
    """Return whether a process exists that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def run_instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """Have another program stand in for the child."""
    program = tmp_path / "child"
    program.write_text(f"#!{sys.executable}\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("service.models.trial.sys.executable", str(program))


@pytest.fixture
def running() -> Iterator[list[Trial]]:
    """Trials whose child is to be ended."""
    trials: list[Trial] = []
    yield trials
    for one in trials:
        one.close()


@pytest.mark.parametrize("name", ["letters", "moods", "prices"])
def test_good_version_passes_and_is_told_by_its_hash(models: Path, running: list[Trial], name: str) -> None:
    folder = models / name / "1"
    running.append(trial_of(folder))
    assert running[0].run(folder).sha256 == spec.hash_of((folder / spec.SPEC_FILE).read_text())


def test_one_child_tries_all_versions_until_it_is_closed(models: Path, running: list[Trial]) -> None:
    running.append(trial := trial_of(models / "letters" / "1"))
    pids = []
    for name in ("letters", "moods", "prices"):
        trial.run(models / name / "1")
        pids.append(child_of(trial).pid)
    assert len(set(pids)) == 1
    trial.close()
    assert not is_running(pids[0])
    trial.run(models / "letters" / "1")
    assert child_of(trial).pid != pids[0]


def test_interfaces_are_compared_by_the_child(models: Path, version: Path, running: list[Trial]) -> None:
    running.append(trial := trial_of(version))
    newer = shutil.copytree(version, version.with_name("2"))
    section = spec_of(newer, version=2)["classification"]
    assert trial.difference(newer, version) == ""
    spec_of(newer, classification=section | {"labels": ["bad", "good"]})
    (newer / "model.onnx").unlink()  # which nothing looks at
    assert trial.difference(newer, version) == (
        "labels: expected negative, positive as version 1 has, found bad, good"
    )
    (newer / "model.json").write_text("{")
    with pytest.raises(spec.SpecError, match="expected JSON"):
        trial.difference(newer, version)
    # The same child goes on with trials.
    pid = child_of(trial).pid
    trial.run(models / "moods" / "1")
    assert child_of(trial).pid == pid


def test_check_that_failed_is_told_as_it_would_be_without_the_trial(
    version: Path, running: list[Trial]
) -> None:
    replace_file(version, "model.onnx", b"spoilt")
    running.append(trial_of(version))
    with pytest.raises(ModelRefused) as refusal:
        running[0].run(version)
    assert refusal.value.check == "graph"
    with pytest.raises(ModelRefused) as direct:
        Preparation(Choices.of(settings_of(version))).run(version)
    assert str(direct.value) == str(refusal.value)


def test_wrong_hash_is_told_as_the_spec_has_it(version: Path, running: list[Trial]) -> None:
    (version / "model.onnx").write_bytes(b"spoilt")
    running.append(trial_of(version))
    with pytest.raises(spec.SpecError, match=r"sha256 of model\.onnx"):
        running[0].run(version)


def test_graph_that_loops_in_wide_ticks_alone_is_refused(version: Path) -> None:
    """The golden examples are three rows; the warm-up is 64 and more."""
    edit_graph(version, loop_above(40))
    started = time.monotonic()
    assert "found no end within that time" in str(refusal_of(version, admission_seconds=4.0))
    assert time.monotonic() - started < 10


def test_graph_that_ends_the_process_without_wanted_outputs_is_refused(version: Path) -> None:
    """An engine asks for no output in the middle of a prompt; a server must not end there."""
    edit_graph(version, recurrence_in_the_head)
    assert "found its process ended by SIGABRT" in str(refusal_of(version))


def test_graph_that_grows_in_wide_ticks_alone_is_refused(version: Path) -> None:
    edit_graph(version, grow_above(40, 1 << 28))
    message = str(refusal_of(version, admission_bytes=1 << 28))
    assert message.startswith(
        "check 'trial' failed: expected a version that loads and answers "
        "its golden examples within 60 s and 268435456 bytes, found"
    )


def test_smallest_bound_of_memory_lets_good_versions_pass(models: Path, running: list[Trial]) -> None:
    """Reading a file reserved 2 GiB, so that no version passed a bound of less."""
    running.append(trial_of(models / "letters" / "1", admission_bytes=1 << 28))
    for name in ("letters", "moods", "prices"):
        running[0].run(models / name / "1")


def test_child_prints_without_end_and_is_not_stopped_by_it(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads what it prints until it has ended."""
    run_instead(monkeypatch, tmp_path, "import sys; sys.stderr.write('x' * (1 << 21)); sys.exit('the last')")
    message = str(refusal_of(version, admission_seconds=20.0))
    assert message.endswith("the last")
    assert len(message) < 1000


def test_answer_without_end_is_refused(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_instead(monkeypatch, tmp_path, "while True: print('x' * (1 << 16), end='')")
    assert "check 'trial' failed" in str(refusal_of(version, admission_seconds=20.0))


def test_process_that_cannot_be_had_is_refused(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("os.posix_spawn", fail)
    monkeypatch.setattr("subprocess._fork_exec", fail)
    assert "found no process to be had: [Errno 11]" in str(refusal_of(version))


def test_child_is_spawned_without_a_fork(
    version: Path, running: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handlers of fork start threads, and gRPC's abort the process if there are none to be had."""
    monkeypatch.delattr("subprocess._fork_exec")
    running.append(trial_of(version))
    running[0].run(version)


def test_child_inherits_no_descriptor(version: Path, running: list[Trial]) -> None:
    with (version / "model.onnx").open("rb") as held:
        running.append(trial_of(version))
        running[0].run(version)
        found = {os.readlink(path) for path in Path(f"/proc/{child_of(running[0]).pid}/fd").iterdir()}
        assert held.name not in found


def test_child_begins_with_the_signals_to_stop_blocked(models: Path, running: list[Trial]) -> None:
    """Those of a terminal come to the whole group, while a server that loads is still to be asked."""
    running.append(trial := trial_of(models / "letters" / "1"))
    trial.begin()
    status = Path(f"/proc/{child_of(trial).pid}/status").read_text().splitlines()
    [blocked] = [int(line.split()[1], 16) for line in status if line.startswith("SigBlk")]
    assert all(blocked >> (number - 1) & 1 for number in STOP_SIGNALS)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {*STOP_SIGNALS}


def test_child_ends_with_the_process_that_started_it(version: Path) -> None:
    program = (
        "import os, pathlib, sys; from service.models.trial import Trial; "
        "from service.settings import Settings; "
        "trial = Trial(Settings(repository=pathlib.Path(sys.argv[1]))); trial.begin(); "
        "print(trial._child._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program, str(version.parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    until = time.monotonic() + 10
    while is_running(int(done.stdout)):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_child_keeps_a_lower_limit_that_the_server_has(version: Path) -> None:
    program = (
        "import pathlib, resource, sys; from service.models.trial import Trial; "
        "from service.settings import Settings; folder = pathlib.Path(sys.argv[1]); "
        "resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30)); "
        "trial = Trial(Settings(repository=folder.parents[1])); "
        "print(len(trial.run(folder).sha256)); trial.close()"
    )
    command = [sys.executable, "-c", program, str(version)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "64\n"


def test_child_whose_parent_has_ended_before_its_limits_were_set_ends() -> None:
    command = [sys.executable, "-m", "service.models.trial_child", "1", str(1 << 28), "10"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (1, b"")


ASKED = f'{json.dumps(asdict(Choices.of(settings_of(Path()))))}\n"folder"\n'.encode()


@contextmanager
def child_with(outcome: str, seconds: float) -> "Iterator[subprocess.Popen[bytes]]":
    """Run the child's program with its alarm after so many seconds; it is killed at the end."""
    program = (
        "import sys, time; from service.models import trial_child; trial_child._ALARM_AFTER_S = 0.0; "
        f"trial_child.outcome = lambda *_: {outcome}; trial_child.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, str(os.getpid()), str(1 << 28), str(seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child:
        try:
            yield child
        finally:
            child.kill()


def test_child_ends_by_its_own_alarm_if_nobody_ends_it() -> None:
    """The server may be stopped by a signal, or busy."""
    with child_with("time.sleep(60)", 0.5) as child:
        assert child.stdin is not None
        child.stdin.write(ASKED)
        assert child.wait(30) == -signal.SIGALRM


def test_child_that_is_idle_for_longer_than_a_trial_may_take_answers() -> None:
    """Its alarm ran from the start, and ended it before a slow server had asked it anything."""
    with child_with("{}", 0.1) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)
        child.stdin.write(ASKED)
        assert child.stdout.readline() == b"{}\n"
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)


def test_child_that_was_killed_while_idle_is_replaced(models: Path, running: list[Trial]) -> None:
    """A good version was refused for it, and whoever had asked for it with it."""
    running.append(trial := trial_of(models / "letters" / "1"))
    for _ in range(2):  # before the first trial, and between two
        trial.begin()
        killed = child_of(trial)
        killed.kill()
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
        trial.run(models / "letters" / "1")
        assert child_of(trial).pid != killed.pid


def test_child_that_survives_its_kill_is_left_behind(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one whose file system hangs; the thread that loads waited for it for good."""
    run_instead(monkeypatch, tmp_path, "import time; time.sleep(60)")
    monkeypatch.setattr("service.models.trial._REAP_S", 0.1)
    trial = trial_of(version, admission_seconds=0.3)
    trial.begin()
    left = child_of(trial)
    monkeypatch.setattr(left, "kill", lambda: None)
    with pytest.raises(ModelRefused, match="no end within that time"):
        trial.run(version)
    assert trial._child is None
    left.send_signal(signal.SIGKILL)
    assert left.wait(10) == -signal.SIGKILL


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
    trial = trial_of(version)
    ending = asyncio.create_task(asyncio.to_thread(trial.run, version))
    async with asyncio.timeout(10):
        await asyncio.to_thread(begun.read_bytes)
        trial.stop()
        with pytest.raises(ModelRefused, match="SIGKILL"):
            await ending
    with pytest.raises(ModelRefused, match="being stopped"):
        trial.run(version)
