"""Slurm's commands, stand-ins, on another machine: a real sshd, a real agent, real certificates."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import asyncssh
import pytest
from IPython.core.interactiveshell import InteractiveShell
from ssh.conftest import UID, USER, RealNode

from slurm_magics import SlurmError
from slurm_magics.remote import Remote
from slurm_magics.settings import read_target
from support.laptop import Laptop, logins
from support.ports import listens
from support.slurm_commands import Commands

QUEUE = "MARK\x1fJOBID\x1fNAME\x1fMARK\nMARK\x1f42\x1fa b\x1fMARK\n"


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An ssh-agent without keys."""
    socket = tmp_path / "agent"
    process = subprocess.Popen(("ssh-agent", "-D", "-a", str(socket)), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not listens(socket):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    yield
    process.terminate()
    process.wait()


def test_without_paramiko_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed the error says so, and how to get it, before anything is tried."""
    monkeypatch.setitem(sys.modules, "paramiko", None)
    with pytest.raises(SlurmError, match="needs paramiko") as refused:
        Remote(read_target(["login1"]))
    assert "pip install paramiko" in refused.value.hint


def test_a_command_runs_as_it_is_written(cluster: Remote) -> None:
    """Odd words, bytes on standard input, variables, the folder and the exit code all arrive."""
    words = ["a b", "it's", 'q"u', "new\nline", "$HOME", "\\n", "*", "é", "", "%s", "\x1eMARK"]
    script = 'printf "%s|" "$@"; cat; echo "$ONE"; pwd; echo oops >&2; exit 7'
    done = cluster.run(
        ["sh", "-c", script, "sh", *words],
        stdin=b"in\xff\n",
        environ={"ONE": "1 '2'\n3"},
        cwd=PurePosixPath("/usr"),
        limit_s=30,
    )
    assert done.stdout == "|".join(words).encode() + b"|in\xff\n1 '2'\n3\n/usr\n"
    assert (done.stderr, done.exit_code) == (b"oops\n", 7)


def test_much_goes_both_ways(cluster: Remote) -> None:
    """More than any window of SSH's, at once in both directions and on standard error."""
    sent = os.urandom(6_000_000)
    done = cluster.run(["sh", "-c", "tee /dev/stderr"], stdin=sent, limit_s=60)
    assert done.stdout == done.stderr == sent


def test_what_is_taken_as_it_comes_is_not_kept(laptop: Laptop, node: RealNode) -> None:
    """But for its beginning; what the login shell says before is no part of it."""
    (node.home / ".bashrc").write_text("echo Welcome; echo Hello >&2\n")
    pieces: list[bytes] = []
    with contextlib.closing(laptop.connect()) as cluster:
        script = "head -c 300000 /dev/zero; echo oops >&2; exit 3"
        done = cluster.run(["sh", "-c", script], limit_s=60, take=pieces.append)
    assert b"".join(pieces) == bytes(300_000)
    assert (len(done.stdout), done.stderr, done.exit_code) == (4096, b"oops\n", 3)


def test_a_variable_is_no_argument(cluster: Remote) -> None:
    """The mark of a query stays out of what others on the node can read."""
    script = "tr '\\0' ' ' </proc/$$/cmdline; tr '\\0' ' ' </proc/$PPID/cmdline"
    done = cluster.run(["sh", "-c", script], environ={"SQUEUE_FORMAT": "s3cret"}, limit_s=30)
    assert b"s3cret" not in done.stdout
    assert b"sh" in done.stdout


def test_one_connection_for_all(cluster: Remote, node: RealNode) -> None:
    """Twenty commands, and files that are read, log in once."""
    before = logins(node)
    for number in range(20):
        assert cluster.run(["echo", str(number)], limit_s=30).stdout == f"{number}\n".encode()
    assert cluster.read(PurePosixPath("/etc/hostname")) is not None
    assert logins(node) == before


def test_files_are_read_from_any_byte(cluster: Remote, node: RealNode) -> None:
    """From the end, from where the last reading ended, anew where the file has been written anew."""
    path = node.home / "an 'odd' name"
    path.write_bytes(b"0123456789")
    there = PurePosixPath(path)
    assert cluster.read(there) == (b"0123456789", 10)
    assert cluster.read(there, -3) == (b"789", 10)
    assert cluster.read(there, -99) == (b"0123456789", 10)
    assert cluster.read(there, 10) == (b"", 10)
    assert cluster.read(there, 11) == (b"0123456789", 10)
    assert cluster.read(PurePosixPath("/nowhere")) is None
    with pytest.raises(SlurmError, match="cannot be read on cluster"):
        cluster.read(PurePosixPath("/usr"))


def test_a_file_of_gigabytes_stays_there(cluster: Remote, node: RealNode) -> None:
    """Its end can be read."""
    path = node.home / "long"
    with path.open("wb") as file:
        file.seek(5 << 30)
        file.write(b"end")
    with pytest.raises(SlurmError, match="long is too long to be read at once: 5120 MB"):
        cluster.read(PurePosixPath(path))
    assert cluster.read(PurePosixPath(path), -3) == (b"end", (5 << 30) + 3)
    path.unlink()


def test_magics_work_over_there(laptop: Laptop, shell: InteractiveShell) -> None:
    """Frames, a job and its output; then back to this machine. PATH is the login shell's."""
    home = laptop.node.home
    folder = home / "bin"
    folder.mkdir(exist_ok=True)
    slurm = Commands(folder, python="/usr/bin/python3")
    tools = home / "tools"
    tools.mkdir()
    for tool in ("sh", "cat", "readlink", "tail", "wc"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    (home / ".bashrc").write_text(f"PATH={tools}\n")  # what a shell that is no login shell has
    (home / ".profile").write_text(f"echo Welcome; PATH={folder}:/usr/bin:/bin; echo\n")
    slurm.answer("squeue", QUEUE)
    slurm.answer("sbatch", "42\n")
    slurm.answer("scontrol", f"JobId=42 JobName=x\n   StdOut={home}/out.txt\n")
    (home / "out.txt").write_text("one\ntwo\n")
    for path in (folder, *folder.iterdir()):
        os.chown(path, UID, UID)
    shell.run_cell(f"%slurm connect -F {laptop.config()} cluster").raise_error()
    shell.run_cell("queue = %squeue -o '%i %j'").raise_error()
    assert shell.user_ns["queue"]["NAME"].tolist() == ["a b"]
    shell.run_cell("%%sbatch --as job -o ~/out.txt\necho hi").raise_error()
    job = shell.user_ns["job"]
    assert job.output == "one\ntwo\n"
    call = slurm.calls("sbatch")[0]
    assert call["argv"] == ["sbatch", "--parsable", "-o", f"{home}/out.txt"]
    assert (call["stdin"], call["cwd"]) == ("#!/bin/bash\necho hi\n", str(home))
    shell.run_cell("%slurm disconnect").raise_error()
    with pytest.raises(SlurmError, match="no connection to cluster any more"):
        _ = job.state
    shutil.rmtree(tools)
    shutil.rmtree(folder)


def test_a_missing_command_is_said(cluster: Remote) -> None:
    """With the machine's name."""
    for limit_s in (30, None):
        with pytest.raises(SlurmError, match="no no-squeue on the PATH of cluster"):
            cluster.run(["no-squeue"], limit_s=limit_s)
    with pytest.raises(SlurmError, match="folder /nowhere is gone on cluster"):
        cluster.run(["true"], cwd=PurePosixPath("/nowhere"), limit_s=30)


def test_a_task_may_miss_a_command(cluster: Remote) -> None:
    """srun passes the task's 127 on, with what its shell said: srun itself was there."""
    done = cluster.run(["bash", "-c", "no-squeue"])
    assert (done.exit_code, b"no-squeue: command not found" in done.stderr) == (127, True)


def test_an_unknown_host_is_refused(laptop: Laptop) -> None:
    """Never taken on trust, whatever the configuration says; nor is a changed or revoked key."""
    other = asyncssh.generate_private_key("ssh-ed25519")
    known = laptop.folder / "known_hosts"
    known.write_text("")
    with pytest.raises(SlurmError, match="is not known: ssh-ed25519 SHA256:") as caught:
        laptop.connect("Host cluster\n  StrictHostKeyChecking no")
    assert "connect once with: ssh cluster" in caught.value.hint
    assert known.read_text() == ""
    laptop.know(other)
    with pytest.raises(SlurmError, match="another key than the known one"):
        laptop.connect()
    laptop.know(before=f"@revoked * {laptop.host_key.export_public_key().decode()}")
    with pytest.raises(SlurmError, match="is revoked"):
        laptop.connect()


def test_an_expired_certificate_is_named(laptop: Laptop) -> None:
    """With its file and its end."""
    laptop.key(valid_s=-60)
    with pytest.raises(SlurmError, match="does not let") as caught:
        laptop.connect()
    assert f"{laptop.folder}/key-cert.pub expired on " in caught.value.hint


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256"])
@pytest.mark.parametrize("holds", ["both", "only the key"])
def test_the_agent_may_hold_the_key(laptop: Laptop, agent: None, kind: str, holds: str) -> None:
    """With the certificate, or with the certificate in a file, as some sites' tools leave it."""
    laptop.key(kind)
    certificate = laptop.folder / "key-cert.pub"
    kept = laptop.folder / "elsewhere"
    if holds == "only the key":
        certificate.rename(kept)
    subprocess.run(("ssh-add", "-q", str(laptop.folder / "key")), check=True)
    (laptop.folder / "key").unlink()
    extra = f"Host cluster\n  CertificateFile {kept}" if holds == "only the key" else ""
    if holds == "both":
        certificate.unlink()
    machine = laptop.connect(extra)
    assert machine.run(["id", "-un"], limit_s=30).stdout == f"{USER}\n".encode()
    machine.close()


def test_no_key_at_all(laptop: Laptop) -> None:
    """What to try is said; a key with a passphrase is named."""
    (laptop.folder / "key-cert.pub").unlink()
    with pytest.raises(SlurmError, match=r"let river.b-2 in with any of 1 keys") as caught:
        laptop.connect()
    assert "ssh cluster true" in caught.value.hint
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(laptop.folder / "key", passphrase="sesame")
    with pytest.raises(SlurmError, match="without a key, and there is none") as caught:
        laptop.connect()
    assert "ssh-add" in caught.value.hint


def test_a_key_is_tried_once(laptop: Laptop, agent: None) -> None:
    """Also one that is in the agent and in a file: sshd lets nobody try many."""
    (laptop.folder / "key-cert.pub").unlink()
    subprocess.run(("ssh-add", "-q", str(laptop.folder / "key")), check=True)
    with pytest.raises(SlurmError, match="with any of 1 keys"):
        laptop.connect()


# bash as a ProxyCommand. Told to end (SIGHUP), or at the end of its input, it takes its other half with it.
_TALK = "exec 3<>/dev/tcp/127.0.0.1/%p; trap : HUP; cat <&3 & cat >&3; kill $!"


def test_jump_hosts_and_proxy_commands(laptop: Laptop) -> None:
    """Each hop's key is verified and each connection ends with the last one."""
    jump = f"Host far\n  HostName 127.0.0.1\n  Port {laptop.node.port}\n  User {USER}\n"
    jump += f"  IdentityFile {laptop.folder}/key\n"
    machine = laptop.connect(jump + "  ProxyJump cluster", "far")
    assert machine.run(["echo", "hi"], limit_s=30).stdout == b"hi\n"
    assert machine._connection is not None
    (hop,) = machine._connection.jumps
    machine.close()
    assert not hop.is_active()
    machine = laptop.connect(f"{jump}  ProxyCommand bash -c '{_TALK}'\n", "far")
    assert machine.run(["echo", "hi"], limit_s=30).stdout == b"hi\n"
    machine.close()


def test_ctrl_c_is_not_for_a_proxy_command(laptop: Laptop, tmp_path: Path) -> None:
    """Jupyter's stop button signals all that the kernel has started: the connection outlasts it."""
    pid = tmp_path / "pid"
    proxy = f"  ProxyCommand bash -c 'echo $$ >{pid}; {_TALK}'\n"
    machine = laptop.connect(f"Host cluster\n{proxy}")
    before = logins(laptop.node)
    os.kill(int(pid.read_text()), signal.SIGINT)
    assert machine.run(["echo", "hi"], limit_s=30).stdout == b"hi\n"
    assert logins(laptop.node) == before
    machine.close()


def test_a_lost_connection_is_said_and_made_anew(cluster: Remote, node: RealNode) -> None:
    """In the middle of a command; of sbatch, that the job may exist all the same."""
    assert cluster._connection is not None
    lose = ["sh", "-c", "kill $(ps -o ppid= $PPID)"]
    with pytest.raises(SlurmError, match="connection to cluster was lost while sh ran") as caught:
        cluster.run(lose, limit_s=30)
    assert "connects anew" in caught.value.hint
    assert cluster.run(["echo", "back"], limit_s=30).stdout == b"back\n"
    sbatch = node.home / "sbatch"
    sbatch.write_text("#!/bin/sh\nkill $(ps -o ppid= $PPID); sleep 60\n")
    sbatch.chmod(0o755)
    with pytest.raises(SlurmError, match="was lost while sbatch ran") as caught:
        cluster.run(["sbatch"], environ={"PATH": f"{node.home}:/usr/bin:/bin"}, limit_s=30)
    assert "look with %squeue" in caught.value.hint


def test_a_silent_command_is_given_up(cluster: Remote) -> None:
    """After its time; the next one works."""
    with pytest.raises(SlurmError, match=r"sleep has not answered within 0.2 s"):
        cluster.run(["sleep", "60"], limit_s=0.2)
    assert cluster.run(["echo", "back"], limit_s=30).stdout == b"back\n"


def test_an_endless_command_keeps_its_exit_code(cluster: Remote) -> None:
    """And its output."""
    done = cluster.run(["sh", "-c", "echo out; cat; echo err >&2; exit 7"])
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_shell_that_talks_or_ends(laptop: Laptop) -> None:
    """What it prints is no part of an answer; one that ends before the command is named, with its bytes."""
    profile = laptop.node.home / ".bashrc"
    profile.write_text("echo Welcome; echo noise >&2\n")
    machine = laptop.connect()
    done = machine.run(["echo", "hi"], limit_s=30)
    assert (done.stdout, done.stderr) == (b"hi\n", b"")
    profile.write_text("printf 'Closed for r\\351paration\\n' >&2; exit 1\n")
    with pytest.raises(SlurmError, match=r"shell on cluster ended before .* Closed for r\\xe9paration"):
        machine.run(["echo", "hi"], limit_s=30)
    machine.close()


def test_what_runs_over_there_is_shown_as_it_comes(laptop: Laptop) -> None:
    """Of both streams, and nothing of what the login shell says before."""
    (laptop.node.home / ".bashrc").write_text("echo Welcome; echo noise >&2\n")
    seen = laptop.node.home / "seen"
    shown: dict[bool, bytes] = {True: b"", False: b""}

    def show(piece: bytes, is_error: bool) -> None:
        shown[is_error] += piece
        if all(shown.values()):
            seen.touch()

    wait = f"n=0; until [ -e {seen} ] || [ $n = 600 ]; do sleep 0.05; n=$((n+1)); done; [ -e {seen} ]"
    with contextlib.closing(laptop.connect()) as machine:
        done = machine.run(["sh", "-c", f"echo out; echo err >&2; {wait} && echo end"], show=show)
    assert (done.exit_code, done.stdout, done.stderr) == (0, b"out\nend\n", b"err\n")
    assert shown == {False: done.stdout, True: done.stderr}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%slurm connect", "needs one host"),
        ("%slurm connect a b", "needs one host"),
        ("%slurm connect -X host", "cannot take '-X'"),
        ("%slurm connect -F", "cannot take '-F'"),
        ("%slurm connect a@b@c", "is no host"),
        ("%slurm connect -F /nowhere host", "ssh refuses its configuration"),
        ("%slurm connect -F none -p 1 127.0.0.1", "cannot be reached: Connection refused"),
    ],
)
def test_what_cannot_be_connected_is_said(shell: InteractiveShell, line: str, words: str) -> None:
    """In a sentence; the notebook goes on with this machine."""
    error = shell.run_cell(line).error_in_exec
    assert isinstance(error, SlurmError)
    assert words in error.message
    assert "(this machine)" in shell.run_cell("%slurm").result


@pytest.mark.parametrize("missing", ["paramiko", "ssh"])
def test_what_a_connection_needs_is_said(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    """In a line, before anything is tried."""
    if missing == "paramiko":
        monkeypatch.setitem(sys.modules, "paramiko", None)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    error = shell.run_cell("%slurm connect nowhere").error_in_exec
    assert isinstance(error, SlurmError)
    assert missing in error.message


def test_a_proxy_command_ends_with_its_connection(
    laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that sees no end of its input, and never reached anything."""
    monkeypatch.setattr("slurm_magics.ssh_login._CONNECT_S", 0.5)
    pid = tmp_path / "pid"
    silent = f"sh -c 'echo $$ >{pid}; while :; do sleep 0.1; done'"
    with pytest.raises(SlurmError, match="has not answered"):
        laptop.connect(f"Host silent\n  HostName nowhere\n  ProxyCommand {silent}\n", "silent")
    deadline = time.monotonic() + 10
    while Path(f"/proc/{int(pid.read_text())}").exists():
        assert time.monotonic() < deadline, "the ProxyCommand still runs"
        time.sleep(0.02)


def test_known_hosts_that_cannot_be_read(laptop: Laptop) -> None:
    """Are named: it is no trouble of the host's, and does not pass."""
    (laptop.folder / "known_hosts").unlink()
    (laptop.folder / "known_hosts").mkdir()
    with pytest.raises(
        SlurmError, match=r"known_hosts, with the keys of known hosts, cannot be read"
    ) as caught:
        laptop.connect()
    assert not caught.value.retryable
