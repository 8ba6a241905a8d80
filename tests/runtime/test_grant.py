"""The share of the computer that a control group leaves, read from real files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.grant import Throttling, read_grant

CORES = len(os.sched_getaffinity(0))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def test_a_container_of_version_2_has_the_quota_of_its_group(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cpu.max": "20000 100000\n",
        "sys/fs/cgroup/cpu.stat": "usage_usec 9\nnr_periods 204\nnr_throttled 199\n"
        "throttled_usec 16000000\n",
        "sys/fs/cgroup/memory.max": "536870912\n",
    }
    grant = read_grant(write(tmp_path, files))
    assert grant.quota_cores == 0.2
    assert grant.processors == 1
    assert grant.limited
    assert grant.memory_limit_bytes == 512 << 20
    assert grant.throttling == Throttling(204, 199, 16.0)
    assert str(grant.throttling) == "throttled in 199 of 204 periods, 16.0 s in all"


def test_a_container_of_version_1_whose_path_is_seen_from_outside_has_its_quota(
    tmp_path: Path,
) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/f00\n3:cpu,cpuacct:/docker/f00\n0::/\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.stat": "nr_periods 10\nnr_throttled 4\n"
        "throttled_time 2500000000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
    }
    grant = read_grant(write(tmp_path, files))
    assert grant.quota_cores == 0.5
    assert grant.throttling == Throttling(10, 4, 2.5)
    assert grant.memory_limit_bytes == 1 << 30


def test_the_lowest_limit_of_all_levels_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/robot.slice/gatort.service\n",
        "sys/fs/cgroup/robot.slice/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/robot.slice/memory.max": "4000000\n",
        "sys/fs/cgroup/robot.slice/gatort.service/cpu.max": "max 100000\n",
        "sys/fs/cgroup/robot.slice/gatort.service/memory.max": "max\n",
    }
    grant = read_grant(write(tmp_path, files))
    assert grant.quota_cores == 1.5
    assert grant.memory_limit_bytes == 4_000_000
    assert grant.processors == 1


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
        {"proc/self/cgroup": "nonsense\n\n7\n", "sys/fs/cgroup/cpu.max": ""},
        {
            "proc/self/cgroup": "1:cpu:/\n2:memory:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    ],
    ids=["no groups", "version 2", "damaged", "version 1"],
)
def test_without_a_limit_all_cores_are_granted(tmp_path: Path, files: dict[str, str]) -> None:
    grant = read_grant(write(tmp_path, files))
    assert (grant.quota_cores, grant.memory_limit_bytes) == (None, None)
    assert grant.processors == grant.cores == CORES
    assert not grant.limited


@pytest.fixture
def fifth_of_a_core() -> Iterator[Path]:
    """A real control group with a quota of 20 % of a core, which moves processes in."""
    clock = MonotonicClock()
    for mounted in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu")):
        folder = mounted / f"gatort-test-{os.getpid()}"
        if not (mounted / "cgroup.procs").exists():
            continue  # A plain folder, as above the controllers of version 1.
        with suppress(OSError):
            folder.mkdir()
            if (folder / "cpu.max").exists():
                (folder / "cpu.max").write_text("20000 100000")
            else:
                (folder / "cpu.cfs_quota_us").write_text("20000")
            break
        with suppress(OSError):
            folder.rmdir()
    else:
        pytest.skip("no control group can be made here")
    yield folder
    for _ in range(200):
        with suppress(OSError):
            folder.rmdir()
            return
        clock.sleep_until_ns(clock.now_ns() + 10_000_000)


def test_a_real_quota_is_read_and_its_throttling_is_counted(fifth_of_a_core: Path) -> None:
    code = (
        "from pathlib import Path; import os, sys\n"
        "Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from gatort.runtime.grant import read_grant\n"
        "before = read_grant().throttling\n"
        "while (found := read_grant()).throttling.since(before).throttled < 3: pass\n"
        "print(found.quota_cores, found.processors, found.throttling.throttled_s > 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(fifth_of_a_core)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "0.2 1 True\n", done.stderr
