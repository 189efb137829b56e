"""Cores that a container's limit leaves to a process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from decant.pipeline.ranks import cores


def _version_1(**cores: int) -> dict[str, str]:
    files = [(f"cpu/{name}/cpu.cfs_quota_us", 100_000 * count) for name, count in cores.items()]
    return {
        name: str(value)
        for path, quota in files
        for name, value in ((path, quota), (path.replace("quota", "period"), 100_000))
    }


@pytest.mark.parametrize(
    ("listed", "files", "given"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/pods/one\n", {"pods/cpu.max": "200000 100000", "pods/one/cpu.max": "800000 100000"}, 2),
        ("0::/pods/one\n", {"pods/cpu.max": "max 100000", "pods/one/cpu.max": "50000 100000"}, 0.5),
        ("0::/../elsewhere\n", {"cpu.max": "300000 100000"}, 3),
        (
            "3:cpuset:/\n2:cpu,cpuacct:/docker/one\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        ("3:cpuset:/one\n2:cpu:/two\n", _version_1(one=1, two=4), 4),
        ("0::/pods:cri:one\n", {"pods:cri:one/cpu.max": "200000 100000"}, 2),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {}, None),
        ("not a line of it\n", {}, None),
    ],
)
def test_the_least_limit_of_the_groups_around_a_process_counts(
    tmp_path: Path, listed: str, files: dict[str, str], given: float | None
) -> None:
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content)
    (tmp_path / "listed").write_text(listed)
    assert cores.given_time(tmp_path / "groups", tmp_path / "listed") == given
    assert cores.given_time(tmp_path / "groups", tmp_path / "none") is None


@pytest.mark.parametrize(("given", "usable"), [(None, 12), (40.0, 12), (2.5, 3), (0.2, 1)])
def test_a_process_counts_no_more_cores_than_it_is_given_time_on(
    monkeypatch: pytest.MonkeyPatch, given: float | None, usable: int
) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setattr(cores, "given_time", lambda: given)
    assert (cores.allowed_cores(), cores.own_cores(), cores.available_cores()) == (12, usable, usable)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert cores.available_cores() == max(1, usable // 3)
    for nothing in ("", "all", "0"):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", nothing)
        assert cores.available_cores() == usable


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_cores_that_this_process_may_not_run_on_are_not_counted() -> None:
    may = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(may)})
        assert cores.allowed_cores() == 1
    finally:
        os.sched_setaffinity(0, may)
