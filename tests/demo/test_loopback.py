"""`--loopback`: the demo where namespaces are not allowed, in a stand-in for a plain container."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpchub.demo import loopback
from hpchub.demo.accounts import accounts
from support import require
from support.demo import run_hpchub

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]


def test_additions_are_taken_back_exactly(tmp_path: Path) -> None:
    """Lines, files and folders go again, also those noted but never made; later lines of others stay."""
    table = tmp_path / "passwd"
    table.write_text("root:x:0\n")
    folder = tmp_path / "home"
    added = loopback.Additions(tmp_path / "added.json")
    added.lines(table, "alice:x:2001\n")
    added.lines(table, "127.0.0.1 here\n", first=True)
    added.note(folder).mkdir()
    (folder / "file").touch()
    added.note(tmp_path / "link").symlink_to(folder)
    added.note(tmp_path / "never-made")
    assert table.read_text() == "127.0.0.1 here\nroot:x:0\nalice:x:2001\n"
    with table.open("a") as more:
        more.write("zoe:x:3000\n")
    loopback.Additions(tmp_path / "added.json").take_back()
    assert [path.name for path in tmp_path.iterdir()] == ["passwd"]
    assert table.read_text() == "root:x:0\nzoe:x:3000\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_without_root_it_is_refused() -> None:
    """Nobody but root may add to a machine, and sudo is not called for it."""
    # With one right of root's: the checkout may lie where others may not go.
    search = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *search, sys.executable]
    done = subprocess.run(
        [*argv, "-m", "hpchub.cli", "demo", "up", "--loopback", "--dir", "/nowhere"],
        cwd=_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "it needs root" in done.stderr


def test_help_says_what_it_does_to_the_machine() -> None:
    """Who reads the help knows that accounts are added to this machine."""
    said = run_hpchub("demo", "up", "--help").stdout
    assert "ADDS the demo's accounts" in " ".join(said.split())


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What one round in the sandbox saw."""
    require.cluster()
    require.programs("setpriv")
    folder = tmp_path_factory.mktemp("loopback")
    own, demo = folder / "own", folder / "demo"
    own.mkdir()
    spaces = ("--mount", "--propagation", "private", "--net", "--uts", "--ipc", "--pid", "--fork")
    argv = ("unshare", *spaces, "--mount-proc", "--kill-child", "sh", str(_HERE / "sandbox.sh"), str(own))
    done = subprocess.run(
        [*argv, sys.executable, str(_HERE / "inside_sandbox.py"), str(demo)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(_ROOT), str(_ROOT / "tests")))},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    yield json.loads(done.stdout)


@pytest.mark.live
def test_no_namespaces_and_no_flag_is_refused(seen: dict[str, Any]) -> None:
    """Where namespaces are not allowed, the message names the flag; nothing is added unasked."""
    assert "does not allow namespaces" in seen["refused"]
    assert "--loopback" in seen["refused"]


@pytest.mark.live
def test_it_says_what_it_cannot_show(seen: dict[str, Any]) -> None:
    """Every guarantee that is missing is printed while it starts."""
    for line in loopback.NOT_SHOWN:
        assert line in seen["up"]


@pytest.mark.live
@pytest.mark.parametrize("placement", ["login", "compute"])
def test_servers_start_on_both_placements(seen: dict[str, Any], placement: str) -> None:
    """A server started through the hub's REST API gets ready, on a login node and in a job."""
    assert seen[placement]["ready"] is True, seen[placement]


@pytest.mark.live
def test_the_job_ran_on_a_node_of_the_cluster(seen: dict[str, Any]) -> None:
    """Slurm gave bob's job one of the two nodes, which are one machine."""
    assert re.fullmatch(r"bob c[12]\n", seen["job"])


@pytest.mark.live
def test_all_ports_are_of_loopback(seen: dict[str, Any]) -> None:
    """Nothing listens on an address that others could reach."""
    assert seen["listening"]
    assert all(address.startswith("127.") for address in seen["listening"]), seen["listening"]


@pytest.mark.live
def test_a_second_one_is_refused(seen: dict[str, Any]) -> None:
    """The machine's accounts are taken: the second start says by what, and adds nothing."""
    assert "has already what --loopback would add" in seen["second"]
    assert "account alice" in seen["second"]


@pytest.mark.live
def test_down_takes_back_everything(seen: dict[str, Any]) -> None:
    """Account files are as before to the last byte, folders hold what they held, no process is left."""
    assert seen["after"] == seen["before"]
    people = {account.person.name for account in accounts()} | {str(account.uid) for account in accounts()}
    assert not [line for line in seen["left"] if line.split()[0] in people or "slurm" in line]
