"""service.cpus."""

import os
from pathlib import Path

import pytest

from service import cpus
from service.cpus import cpu_quota, usable_cpus


def version_2(folder: Path, text: str) -> Path:
    (folder / "cpu.max").write_text(text)
    return folder


def version_1(folder: Path, quota: str, period: str = "100000\n") -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (folder / "cpu" / "cpu.cfs_period_us").write_text(period)
    return folder


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000\n", 2.0), ("50000 100000\n", 0.5), ("150000 50000", 3.0), ("max 100000\n", None)],
)
def test_cgroup_version_2_quota(tmp_path: Path, text: str, cores: float | None) -> None:
    assert cpu_quota(version_2(tmp_path, text)) == cores


@pytest.mark.parametrize(("quota", "cores"), [("250000\n", 2.5), ("-1\n", None)])
def test_cgroup_version_1_quota(tmp_path: Path, quota: str, cores: float | None) -> None:
    assert cpu_quota(version_1(tmp_path, quota)) == cores


def test_version_2_goes_before_version_1(tmp_path: Path) -> None:
    assert cpu_quota(version_1(version_2(tmp_path, "300000 100000"), "100000")) == 3.0


def test_machine_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "missing") is None


def test_quota_file_that_says_nothing_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(version_2(tmp_path, "")) is None


@pytest.mark.parametrize(
    ("quota", "allowed", "cores"),
    [
        pytest.param(None, 8, 8, id="no quota: the affinity"),
        pytest.param(2.0, 8, 2, id="the quota"),
        pytest.param(2.5, 8, 3, id="a part of a core counts as one"),
        pytest.param(0.1, 8, 1, id="never none"),
        pytest.param(16.0, 4, 4, id="never more than the affinity"),
    ],
)
def test_usable_cpus_are_the_smaller_of_quota_and_affinity(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, allowed: int, cores: int
) -> None:
    monkeypatch.setattr(cpus, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
    assert usable_cpus() == cores
