"""limits.sh, run for real: which way it takes, and what holds then.

No machine of ours has systemd's user manager or a delegated cgroup with these controllers: those two are
shown the files and programs that they look for, and the order and the command line are what is tested.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpchub.bridge.login_limits import limits_script
from hpchub.core.cluster import LoginLimits

ID = "0123456789abcdef" * 2
GIB = 1024**3
ALL = LoginLimits(memory_bytes=2 * GIB, cpus=1, processes=300, nice=7)
SHOW = 'echo "$(ulimit -d) $(ulimit -Hd) $(ulimit -u) $(nice) $(nproc)"'


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node without systemd and cgroups; `bin` comes before its own programs."""
    for name in ("bin", "cgroup"):
        (tmp_path / name).mkdir()
    program(tmp_path, "systemd-run", "exit 1")
    return tmp_path


def program(node: Path, name: str, text: str) -> None:
    path = node / "bin" / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def run(node: Path, limits: LoginLimits, command: str = SHOW) -> tuple[str, str]:
    """What a command prints within limits, and the way that was taken."""
    (node / "limits.sh").write_bytes(limits_script(limits, ID, str(node / "cgroup")))
    done = subprocess.run(
        ("/bin/bash", str(node / "limits.sh"), "/bin/bash", "-c", command),
        env={"PATH": f"{node / 'bin'}:/usr/bin:/bin", "LOG": str(node / "log")},
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip().removeprefix("hpchub: limited by ")


def test_ulimit_holds(node: Path) -> None:
    """Where there is nothing else: memory as RLIMIT_DATA, for good, processes, niceness and one CPU."""
    before = os.nice(0)
    shown, way = run(node, ALL)
    assert way == "ulimit"
    assert shown == f"{2 * GIB // 1024} {2 * GIB // 1024} 300 {min(before + 7, 19)} 1"


def test_only_what_is_said_is_limited(node: Path) -> None:
    """A limit that is left out stays as the site has it."""
    plain = subprocess.run(("/bin/bash", "-c", SHOW), capture_output=True, text=True).stdout.split()
    shown, _ = run(node, LoginLimits(processes=300))
    assert shown.split() == [*plain[:2], "300", *plain[3:]]


def test_memory_ends_the_one_that_takes_it(node: Path) -> None:
    """Python gets a MemoryError for what it writes to, and may reserve what it likes."""
    reserve = "import mmap; mmap.mmap(-1, 64 << 30, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)"
    take = "\ntry: bytearray(3 << 30)\nexcept MemoryError: print('refused')"
    shown, _ = run(node, ALL, f'/usr/bin/python3 -c "{reserve}{take}"')
    assert shown == "refused"


def test_a_systemd_that_lingers_is_first(node: Path) -> None:
    """A scope with the three limits, tried before; niceness and name besides."""
    procs = "sed -n s/^0:://p /proc/self/cgroup"
    folder = Path(
        f"{node / 'cgroup'}{subprocess.run(procs.split(), capture_output=True, text=True).stdout.strip()}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("memory.max", "pids.max", "cpu.max"):
        (folder / name).touch()
    program(node, "loginctl", "echo yes")
    program(node, "systemd-run", 'echo "$*" >>"$LOG"; while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    shown, way = run(node, ALL, "nice")
    assert way == "systemd" and shown == str(min(os.nice(0) + 7, 19))
    properties = f"-p MemoryMax={2 * GIB} -p TasksMax=300 -p CPUQuota=100%"
    said = (node / "log").read_text()
    assert said.startswith(f"--user --scope --quiet --collect {properties} -- /bin/sh -c")
    assert (
        f"\n--user --scope --quiet --collect {properties} --unit=hpchub-{ID[:16]} -- nice -n 7 /bin/bash"
        in said
    )


@pytest.mark.parametrize("case", ["not lingering", "no controller", "no manager"])
def test_a_systemd_that_would_not_hold_is_passed_over(node: Path, case: str) -> None:
    """One that ends with the last login, one without controllers, one that is not there."""
    program(node, "loginctl", "echo no" if case == "not lingering" else "echo yes")
    runs = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    program(node, "systemd-run", "exit 1" if case == "no manager" else runs)
    assert run(node, ALL)[1] == "ulimit"


def test_a_delegated_cgroup_is_second(node: Path) -> None:
    """Its limits are written, the server is put into it, and its exit code comes through."""
    own = node / "cgroup"
    relative = next(
        (line[3:] for line in Path("/proc/self/cgroup").read_text().split() if line[:3] == "0::"), ""
    )
    parent = Path(f"{own}{relative}".rstrip("/"))
    group = parent / f"hpchub-{ID[:16]}"
    group.mkdir(parents=True)
    for path in (parent / "cgroup.procs", *(group / f"{name}.max" for name in ("memory", "pids", "cpu"))):
        path.touch()
    shown, way = run(node, ALL, "echo $$")
    assert way == f"the cgroup {group}"
    assert (group / "memory.max").read_text() == f"{2 * GIB}\n"
    assert (group / "pids.max").read_text() == "300\n"
    assert (group / "cpu.max").read_text() == "100000 100000\n"
    assert (group / "cgroup.procs").read_text() == f"{shown}\n"
    with pytest.raises(AssertionError):
        run(node, ALL, "exit 3")
    (group / "pids.max").unlink()
    assert run(node, ALL)[1] == "ulimit"
