"""The way to the cluster fails while it is in use: a real sshd, which is killed, stopped, and let go on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest
from IPython.core.interactiveshell import InteractiveShell
from ssh.conftest import UID, RealNode

from slurm_magics import SlurmError
from slurm_magics.errors import Interrupted
from slurm_magics.known_hosts import fingerprint
from slurm_magics.remote import Remote
from support.children import frozen, kill_descendants
from support.ctrl_c import press_ctrl_c
from support.laptop import Laptop, logins

# Rows of a long table; the stand-in ends its own sshd after some of them, the first time.
_SQUEUE = """#!/bin/sh
us=$(printf '\\037'); mark=${SQUEUE_FORMAT%%$us*}
row() { printf '%s\\037%s\\037%s\\n' "$mark" "$1" "$mark"; }
row JOBID
n=0; while [ $n -lt 2000 ]; do n=$((n+1)); row $n; done
[ -e cut ] || { touch cut; kill -9 $(ps -o ppid= $PPID) $PPID; sleep 60; }
row 2001
"""


@pytest.fixture
def there(laptop: Laptop, shell: InteractiveShell) -> Iterator[InteractiveShell]:
    """A shell that is connected, to a machine whose squeue a test writes."""
    (laptop.node.home / ".bashrc").write_text(f"PATH={laptop.node.home}:/usr/bin:/bin\n")
    put(laptop.node, "squeue", "")  # by which the right PATH is found
    shell.run_cell(f"%slurm fresh 0\n%slurm connect -F {laptop.config()} cluster").raise_error()
    yield shell
    shell.run_cell("%slurm disconnect").raise_error()


def put(node: RealNode, name: str, text: str) -> None:
    path = node.home / name
    path.write_text(text)
    path.chmod(0o755)
    os.chown(path, UID, UID)


def test_an_answer_is_cut_by_the_network(
    laptop: Laptop, there: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """No half table, a line or two that say so, and the next magic connects by itself, once."""
    put(laptop.node, "squeue", _SQUEUE)
    before = logins(laptop.node)
    result = there.run_cell("queue = %squeue -o %i")
    assert isinstance(result.error_in_exec, SlurmError)
    assert "queue" not in there.user_ns
    shown = capsys.readouterr().out
    assert "The connection to cluster was lost while squeue ran." in shown
    assert "Traceback" not in shown
    there.run_cell("queue = %squeue -o %i").raise_error()
    assert len(there.user_ns["queue"]) == 2001
    assert logins(laptop.node) == before + 1
    (laptop.node.home / "cut").unlink()


def test_an_idle_connection_that_is_lost(cluster: Remote, node: RealNode) -> None:
    """As a laptop's that has slept: the next command does not even fail."""
    before = logins(node)
    kill_descendants(node.process.pid)
    assert cluster.run(["echo", "back"], limit_s=30).stdout == b"back\n"
    assert logins(node) == before + 1


def test_ctrl_c_in_the_middle_of_a_query(
    laptop: Laptop, there: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line is shown; the connection serves the next cell."""
    begun = laptop.node.home / "begun"
    put(laptop.node, "squeue", f"#!/bin/sh\necho >{begun}\nsleep 60\n")
    before = logins(laptop.node)
    press_ctrl_c(begun.exists)
    assert isinstance(there.run_cell("%squeue").error_in_exec, Interrupted)
    shown = capsys.readouterr().out
    assert "Interrupted: squeue was given up." in shown
    assert "Traceback" not in shown
    (laptop.node.home / "cut").touch()
    put(laptop.node, "squeue", _SQUEUE)
    there.run_cell("queue = %squeue -o %i").raise_error()
    assert len(there.user_ns["queue"]) == 2001
    assert logins(laptop.node) == before
    (laptop.node.home / "cut").unlink()


@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_lets_an_srun_over_there_cancel(
    laptop: Laptop, there: InteractiveShell, capsys: pytest.CaptureFixture[str], presses: int
) -> None:
    """It is waited for, as one on this machine is, and only then said to have cancelled anything."""
    home = laptop.node.home
    begun, told, goes, ended = (home / f"{name}-{presses}" for name in ("begun", "told", "goes", "ended"))
    cancel = f"echo >{told}; until [ -e {goes} ]; do sleep 0.05; done; echo last; echo >{ended}; exit"
    put(laptop.node, "srun", f"#!/bin/sh\n{_srun(begun, cancel)}")
    press_ctrl_c(begun.exists)
    press_ctrl_c(told.exists, presses - 1, goes.touch)
    assert isinstance(there.run_cell("%srun hostname").error_in_exec, Interrupted)
    assert ended.exists()
    shown, errors = capsys.readouterr()
    assert "first\nlast\n" in shown
    assert errors == ("" if presses == 1 else "Waiting for srun to cancel what it has begun.\n")
    assert "Interrupted: srun was ended, and what it had begun in the cluster is cancelled." in shown


def test_ctrl_c_and_the_connection_is_lost(
    laptop: Laptop, there: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the srun over there has ended: nobody knows what it has cancelled, and that is said."""
    begun, told = laptop.node.home / "begun-lost", laptop.node.home / "told-lost"
    put(laptop.node, "srun", f"#!/bin/sh\n{_srun(begun, f'echo >{told}')}")
    press_ctrl_c(begun.exists)
    press_ctrl_c(told.exists, 0, lambda: kill_descendants(laptop.node.process.pid))
    assert isinstance(there.run_cell("%srun hostname").error_in_exec, Interrupted)
    words = (
        "Interrupted: srun was told to end, but the connection was lost. What it had begun may go on: look"
    )
    assert words in capsys.readouterr().out


def test_ctrl_c_and_an_srun_over_there_that_does_not_end(
    laptop: Laptop,
    there: InteractiveShell,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not said that anything was cancelled; the connection serves the next cell."""
    monkeypatch.setattr("slurm_magics.ssh_session.CANCELS_WITHIN_S", 0.1)
    begun = laptop.node.home / "begun-stays"
    put(laptop.node, "srun", f"#!/bin/sh\n{_srun(begun, '')}")
    press_ctrl_c(begun.exists)
    before = logins(laptop.node)
    assert isinstance(there.run_cell("%srun hostname").error_in_exec, Interrupted)
    words = "Interrupted: srun was told to end, and has not within 0.1 s. What it had begun may go on: look"
    assert words in capsys.readouterr().out
    put(laptop.node, "squeue", "#!/bin/sh\n")
    there.run_cell("%squeue --help").raise_error()
    assert logins(laptop.node) == before


def _srun(begun: Path, at_hangup: str) -> str:
    """One that runs for a minute, or until it ends at SIGHUP."""
    loop = "n=0; while [ $n -lt 600 ]; do n=$((n+1)); sleep 0.1; done"
    return f"trap '{at_hangup}' HUP; echo first; echo >{begun}; {loop}\n"


def test_ctrl_c_while_sbatch_runs_over_there(laptop: Laptop, there: InteractiveShell) -> None:
    """Its answer is waited for: the job and its number are kept, and so is the connection."""
    home = laptop.node.home
    begun, goes = home / "begun-sbatch", home / "goes"
    waits = f"n=0; until [ -e {goes} ] || [ $n = 600 ]; do sleep 0.05; n=$((n+1)); done"
    put(laptop.node, "sbatch", f"#!/bin/sh\necho >{begun}\n{waits}\necho 42\n")
    put(laptop.node, "scontrol", "#!/bin/sh\n")
    before = logins(laptop.node)
    press_ctrl_c(begun.exists, 2, goes.touch)
    assert isinstance(there.run_cell("%%sbatch --as job\ntrue").error_in_exec, Interrupted)
    assert there.user_ns["job"].id == "42"
    assert logins(laptop.node) == before


def test_a_login_node_that_is_silent(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes connections and says nothing: that is said, on a new connection and on one that stands."""
    for name in ("remote._SESSION_S", "remote._PROBE_S", "ssh_login._CONNECT_S"):
        monkeypatch.setattr(f"slurm_magics.{name}", 0.3)
    machine = open_patiently(laptop, monkeypatch)
    with frozen(laptop.node.process.pid):
        for attempt in (lambda: machine.run(["true"], limit_s=30), laptop.connect):
            with pytest.raises(SlurmError, match="it takes the connection, and has not answered") as caught:
                attempt()
            assert caught.value.retryable
    monkeypatch.undo()
    assert machine.run(["echo", "back"], limit_s=30).stdout == b"back\n"
    machine.close()


def open_patiently(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """A connection made with the usual limits, on a machine that may be busy."""
    with monkeypatch.context() as usual:
        usual.setattr("slurm_magics.ssh_login._CONNECT_S", 15.0)
        usual.setattr("slurm_magics.remote._SESSION_S", 10.0)
        return laptop.connect()


@pytest.mark.slow
def test_a_login_node_falls_silent_in_the_middle(
    cluster: Remote, node: RealNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told from a slow command, and the next one connects anew."""
    monkeypatch.setattr("slurm_magics.remote._PROBE_S", 0.5)
    stop = "kill -STOP $(ps -o ppid= $PPID) $PPID; sleep 10"
    try:
        with pytest.raises(SlurmError, match="cluster does not answer any more") as caught:
            cluster.run(["sh", "-c", stop], limit_s=3.0)
    finally:
        kill_descendants(node.process.pid)
    assert "connects anew" in caught.value.hint
    assert cluster.run(["echo", "back"], limit_s=30).stdout == b"back\n"


@pytest.mark.slow
def test_a_certificate_expires_while_it_is_in_use(laptop: Laptop) -> None:
    """The connection that stands goes on; the next one says what to do, and works when that is done."""
    laptop.key(valid_s=3)
    machine = laptop.connect()
    time.sleep(3.1)
    assert machine.run(["echo", "hi"], limit_s=30).stdout == b"hi\n"
    machine._drop()
    with pytest.raises(SlurmError, match="does not let") as caught:
        machine.run(["echo", "hi"], limit_s=30)
    assert f"{laptop.folder}/key-cert.pub expired on " in caught.value.hint
    assert "hpchub login" in caught.value.hint
    assert not caught.value.retryable
    laptop.key()
    assert machine.run(["echo", "hi"], limit_s=30).stdout == b"hi\n"
    machine.close()


def test_a_changed_host_key_is_shown_beside_the_known_one(laptop: Laptop) -> None:
    """Both fingerprints, to be compared with what the site publishes."""
    other = asyncssh.generate_private_key("ssh-ed25519")
    laptop.know(other)
    with pytest.raises(SlurmError, match="another key than the known one") as caught:
        laptop.connect()
    assert f"Known is ssh-ed25519 {fingerprint(other.public_data)}." in caught.value.message
    assert f"one: ssh-ed25519 {fingerprint(laptop.host_key.public_data)}." in caught.value.message
    assert "ask the staff" in caught.value.hint
