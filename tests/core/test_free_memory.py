"""How much memory there is: what Linux tells of the machine, of containers and of services."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quickcache_core.free_memory import MemoryState, give_back, memory_limit, read_memory

KB, MB, GB = 2**10, 2**20, 2**30

ID = "1e0bf73d8279307e8ae6ddca5f5119f69b8ba1bbc1573aa1bb2f9684d23f17e8"

MEMINFO = """\
MemTotal:       16000000 kB
MemFree:          500000 kB
MemAvailable:    8000000 kB
Buffers:           39132 kB
Cached:          2398960 kB
HugePages_Total:       0
"""

DOCKER_V2 = """\
1023 1020 0:164 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1025 1020 0:168 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
1026 1025 0:23 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
1029 1020 0:70 /Users/operator/my\\040files /srv rw,relatime - ext4 /dev/vda1 rw
"""

DOCKER_V2_IN_THE_HOSTS_NAMESPACE = f"""\
1573 1568 0:173 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
1574 1573 0:23 /system.slice/docker-{ID}.scope /sys/fs/cgroup ro,nosuid,nodev,noexec - cgroup2 cgroup rw
"""

SYSTEMD = """\
23 28 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
39 23 0:35 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
"""

DOCKER_V1 = f"""\
516 515 0:90 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755,inode64
517 516 0:28 /docker/{ID} /sys/fs/cgroup/systemd ro,relatime master:11 - cgroup cgroup rw,xattr,name=systemd
518 516 0:31 /docker/{ID} /sys/fs/cgroup/memory ro,relatime master:15 - cgroup cgroup rw,memory
520 516 0:33 /docker/{ID} /sys/fs/cgroup/cpu,cpuacct ro,relatime master:17 - cgroup cgroup rw,cpu,cpuacct
"""

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""

V1_WITHOUT_LIMIT = 9223372036854771712
"""As version 1 writes it."""


def write(root: Path, files: dict[str, object]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def machine(root: Path, mountinfo: str, groups: str, meminfo: str = MEMINFO) -> Path:
    write(
        root,
        {"proc/meminfo": meminfo, "proc/self/mountinfo": mountinfo, "proc/self/cgroup": groups},
    )
    return root


def group_v2(root: Path, path: str, limit: int | str, used: int, inactive: int = 0) -> None:
    stat = (
        f"anon {used - inactive}\nfile {inactive}\ninactive_anon 12345\ninactive_file {inactive}\nslab 4096"
    )
    at = f"sys/fs/cgroup/{path}"
    write(root, {f"{at}/memory.max": limit, f"{at}/memory.current": used, f"{at}/memory.stat": stat})


def group_v1(root: Path, path: str, limit: int, used: int, inactive: int = 0) -> None:
    # The plain line is of this group alone, the total one of those within it as well.
    stat = f"cache {inactive}\ninactive_file 4096\ntotal_cache {inactive}\ntotal_inactive_file {inactive}"
    at = f"sys/fs/cgroup/memory/{path}"
    write(
        root,
        {
            f"{at}/memory.limit_in_bytes": limit,
            f"{at}/memory.usage_in_bytes": used,
            f"{at}/memory.stat": stat,
        },
    )


# The machine


def test_a_machine_without_control_groups(tmp_path: Path) -> None:
    """What the kernel estimates as available counts, not what is free: most of the rest is file cache."""
    write(tmp_path, {"proc/meminfo": MEMINFO})
    assert read_memory(tmp_path) == MemoryState(16_000_000 * KB, 8_000_000 * KB)
    assert read_memory(tmp_path).share == 0.5


def test_a_kernel_that_does_not_estimate(tmp_path: Path) -> None:
    """Before Linux 3.14 free memory is all that is known to be available."""
    write(tmp_path, {"proc/meminfo": MEMINFO.replace("MemAvailable", "MemOther")})
    assert read_memory(tmp_path).available == 500_000 * KB


def test_nothing_to_read(tmp_path: Path) -> None:
    """Without /proc there is no answer, and the error says what was looked for."""
    with pytest.raises(OSError, match="meminfo"):
        read_memory(tmp_path)


@pytest.mark.parametrize("text", ["", "nonsense", "MemTotal: 0 kB", "MemTotal: much kB"])
def test_nonsense_in_meminfo(tmp_path: Path, text: str) -> None:
    """What can't be understood isn't believed."""
    write(tmp_path, {"proc/meminfo": text})
    with pytest.raises(OSError, match="meminfo"):
        read_memory(tmp_path)


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="this system doesn't even tell that")
def test_a_system_that_tells_only_how_much_there_is(tmp_path: Path) -> None:
    """Elsewhere the size of the memory is known all the same, for percentages."""
    assert memory_limit(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# Version 2


def test_docker_with_version_2(tmp_path: Path) -> None:
    """A container sees its own group as the root. File cache that nobody used lately is available."""
    machine(tmp_path, DOCKER_V2, "0::/")
    group_v2(tmp_path, "", 512 * MB, used=300 * MB, inactive=100 * MB)
    assert read_memory(tmp_path) == MemoryState(512 * MB, 312 * MB)
    assert memory_limit(tmp_path) == 512 * MB


def test_docker_with_version_2_in_the_namespace_of_the_host(tmp_path: Path) -> None:
    """The group has the host's name, and is what is mounted."""
    machine(tmp_path, DOCKER_V2_IN_THE_HOSTS_NAMESPACE, f"0::/system.slice/docker-{ID}.scope")
    group_v2(tmp_path, "", 512 * MB, used=300 * MB)
    assert read_memory(tmp_path) == MemoryState(512 * MB, 212 * MB)


def test_a_group_under_a_name_that_is_mounted_nowhere(tmp_path: Path) -> None:
    """Of all that can be seen the mounted group is the nearest."""
    machine(tmp_path, DOCKER_V2_IN_THE_HOSTS_NAMESPACE, "0::/")
    group_v2(tmp_path, "", 512 * MB, used=300 * MB)
    assert read_memory(tmp_path) == MemoryState(512 * MB, 212 * MB)


def test_a_container_without_a_limit(tmp_path: Path) -> None:
    """Then the machine's memory counts."""
    machine(tmp_path, DOCKER_V2, "0::/")
    group_v2(tmp_path, "", "max", used=300 * MB)
    assert read_memory(tmp_path) == MemoryState(16_000_000 * KB, 8_000_000 * KB)


def test_nested_slices(tmp_path: Path) -> None:
    """The limits of all groups around apply: the smallest is what the process may have at most, and the one
    that leaves least says what is available.
    """
    own = "user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope"
    machine(tmp_path, SYSTEMD, f"0::/{own}")
    group_v2(tmp_path, own, GB, used=100 * MB)
    group_v2(tmp_path, "user.slice/user-1000.slice/user@1000.service", "max", used=3 * GB)
    group_v2(tmp_path, "user.slice/user-1000.slice", 4 * GB, used=4 * GB - 200 * MB, inactive=50 * MB)
    assert read_memory(tmp_path) == MemoryState(GB, 250 * MB)


def test_the_machine_has_less_than_the_group_may_take(tmp_path: Path) -> None:
    """A limit is no promise."""
    machine(tmp_path, DOCKER_V2, "0::/", MEMINFO.replace("8000000", "  10000"))
    group_v2(tmp_path, "", 512 * MB, used=100 * MB)
    assert read_memory(tmp_path) == MemoryState(512 * MB, 10_000 * KB)


def test_a_limit_beyond_the_machine(tmp_path: Path) -> None:
    """What isn't there can't be had."""
    machine(tmp_path, DOCKER_V2, "0::/")
    group_v2(tmp_path, "", 64 * GB, used=300 * MB)
    assert read_memory(tmp_path) == MemoryState(16_000_000 * KB, 8_000_000 * KB)


def test_a_group_that_is_slowed_down(tmp_path: Path) -> None:
    """Above `memory.high` the kernel brakes a process: it is met before the hard limit."""
    machine(tmp_path, DOCKER_V2, "0::/")
    group_v2(tmp_path, "", 512 * MB, used=300 * MB)
    write(tmp_path, {"sys/fs/cgroup/memory.high": 400 * MB})
    assert read_memory(tmp_path) == MemoryState(400 * MB, 100 * MB)


def test_a_group_over_its_limit(tmp_path: Path) -> None:
    """Nothing is available, rather than less than nothing."""
    machine(tmp_path, DOCKER_V2, "0::/")
    group_v2(tmp_path, "", 512 * MB, used=513 * MB)
    assert read_memory(tmp_path) == MemoryState(512 * MB, 0)


def test_a_group_that_may_not_be_looked_into(tmp_path: Path) -> None:
    """What can't be read is taken for no limit."""
    machine(tmp_path, DOCKER_V2, "0::/")
    write(tmp_path, {"sys/fs/cgroup/memory.max": 512 * MB})
    assert read_memory(tmp_path).total == 16_000_000 * KB


def test_a_group_without_the_line_of_its_file_cache(tmp_path: Path) -> None:
    """Then all that is used counts as used."""
    machine(tmp_path, DOCKER_V2, "0::/")
    group_v2(tmp_path, "", 512 * MB, used=300 * MB, inactive=100 * MB)
    (tmp_path / "sys/fs/cgroup/memory.stat").unlink()
    assert read_memory(tmp_path) == MemoryState(512 * MB, 212 * MB)


def test_a_process_that_was_moved_out_of_its_container(tmp_path: Path) -> None:
    """A group of the same name within the container is another one."""
    machine(tmp_path, DOCKER_V2, "0::/../other")
    group_v2(tmp_path, "other", 5 * MB, used=MB)
    assert read_memory(tmp_path).total == 16_000_000 * KB


def test_a_group_that_was_removed(tmp_path: Path) -> None:
    """The groups around it are still there."""
    machine(tmp_path, SYSTEMD, "0::/shop.slice/shop.service (deleted)")
    group_v2(tmp_path, "shop.slice", GB, used=100 * MB)
    assert read_memory(tmp_path) == MemoryState(GB, GB - 100 * MB)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A mount point may have any bytes in its name, and spaces are written as numbers."""
    machine(tmp_path, "", "0::/")
    line = b"9 8 0:7 / /mnt/\xff rw - ext4 /dev/sda rw\n9 8 0:23 / /my\\040groups rw - cgroup2 cgroup rw\n"
    (tmp_path / "proc/self/mountinfo").write_bytes(line)
    group_v2(tmp_path, "", 512 * MB, used=300 * MB)
    (tmp_path / "sys/fs/cgroup").rename(tmp_path / "my groups")
    assert read_memory(tmp_path).total == 512 * MB


@pytest.mark.parametrize(
    "mountinfo", ["", "1 2 3", "1 2 3 - cgroup2", "1 2 0:3 / /sys/fs/cgroup rw -", " - "]
)
@pytest.mark.parametrize("groups", ["", "0", "0::/", "x:y", "4:memory:/", "::::"])
def test_lines_that_make_no_sense(tmp_path: Path, mountinfo: str, groups: str) -> None:
    """The machine's memory is told, whatever is wrong with the rest."""
    machine(tmp_path, mountinfo, groups)
    assert read_memory(tmp_path).total == 16_000_000 * KB


# Version 1


def test_docker_with_version_1(tmp_path: Path) -> None:
    """The group's own directory is what is mounted, and the file cache of the groups within it counts too."""
    groups = (
        f"12:cpu,cpuacct:/docker/{ID}\n11:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice"
    )
    machine(tmp_path, DOCKER_V1, groups)
    group_v1(tmp_path, "", 512 * MB, used=300 * MB, inactive=100 * MB)
    assert read_memory(tmp_path) == MemoryState(512 * MB, 312 * MB)


def test_version_1_without_a_limit(tmp_path: Path) -> None:
    """The huge number is no limit, and not what there is at most even if the machine doesn't tell."""
    machine(tmp_path, DOCKER_V1, f"11:memory:/docker/{ID}")
    group_v1(tmp_path, "", V1_WITHOUT_LIMIT, used=300 * MB)
    assert read_memory(tmp_path) == MemoryState(16_000_000 * KB, 8_000_000 * KB)
    (tmp_path / "proc/meminfo").unlink()
    with pytest.raises(OSError, match="meminfo"):
        read_memory(tmp_path)


@pytest.mark.parametrize("mountinfo", [HYBRID, "\n".join(reversed(HYBRID.splitlines()))], ids=["12", "21"])
def test_nested_groups_of_version_1_beside_version_2(tmp_path: Path, mountinfo: str) -> None:
    """With both mounted the memory is where its controller is."""
    machine(tmp_path, mountinfo, "9:name=systemd:/\n4:memory:/outer/inner\n3:cpuset:/\n0::/")
    group_v1(tmp_path, "outer/inner", V1_WITHOUT_LIMIT, used=30 * MB)
    group_v1(tmp_path, "outer", 2 * GB, used=GB, inactive=100 * MB)
    group_v1(tmp_path, "", V1_WITHOUT_LIMIT, used=3 * GB)
    (tmp_path / "sys/fs/cgroup/unified").mkdir()
    assert read_memory(tmp_path) == MemoryState(2 * GB, GB + 100 * MB)


# The real thing

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")


@needs_linux
def test_this_machine() -> None:
    """There is memory, and a hundred megabytes more in use are a hundred megabytes less of it."""
    state = read_memory()
    assert 0 < state.available <= state.total <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_limit() == state.total


def scope(limit: int) -> list[str]:
    """What runs a command in a control group of its own, with a limit; the test is skipped if nothing can."""
    path = shutil.which("systemd-run")
    if path is None:
        pytest.skip("no systemd-run to make a control group with")
    user = [] if os.geteuid() == 0 else ["--user"]
    command = [path, *user, "--scope", "--quiet", "-p", f"MemoryMax={limit}", "-p", "MemorySwapMax=0"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode != 0:
        pytest.skip(f"systemd-run makes no control group here: {tried.stderr.strip()}")
    return command


IN_A_GROUP = """
from quickcache_core.free_memory import read_memory
before = read_memory()
ballast = b"x" * 100_000_000
after = read_memory()
print(before.total, before.available - after.available)
"""


@needs_linux
def test_a_real_group_with_a_limit() -> None:
    """Its limit is what there is at most, and what the process takes is gone."""
    command = [*scope(300 * MB), sys.executable, "-c", IN_A_GROUP]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    total, taken = map(int, result.stdout.split())
    assert total == 300 * MB
    assert 90_000_000 < taken < 120_000_000


GIVEN_BACK = """
import gc
from quickcache_core.free_memory import give_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

strings = [str(number).ljust(1000, "x") for number in range(100_000)]
# Something that lies at the end keeps the C library from giving back what lies below.
last = "y" * 1000
full = resident()
del strings
gc.collect()
freed = resident()
give_back()
print(full, freed, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is freed")
def test_what_was_freed_is_given_back() -> None:
    """glibc keeps what Python frees for the process; asked, it hands out what no object lies in."""
    result = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, timeout=60, check=True
    )
    full, _, given_back = map(int, result.stdout.split())
    assert full - given_back > 80_000_000


def test_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be given back nothing happens."""
    import ctypes

    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    give_back()
