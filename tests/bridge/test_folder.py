"""A server's folder: every command run for real, by /bin/sh, as an account that is not root."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpchub.bridge.folder import (
    add_command,
    end_command,
    keep_log_command,
    outcome_command,
    owner_argv,
    parse_add,
    parse_end,
    parse_outcome,
    parse_owner,
    parse_prepare,
    parse_tcp,
    prepare_command,
    remove_command,
    start_on_login_node_command,
    tcp_command,
)
from hpchub.core.command import Command, CommandResult
from hpchub.errors import AccountProblem, HostUnreachable, HpchubError, NotAllowed, NotListening
from support import require

# Its own for each run: two runs side by side must not see each other.
UID = 5_000_000 + os.getpid()
ID = "0123456789abcdef" * 2


@dataclass
class Account:
    """An account without a name, and its home."""

    home: Path

    def run(self, command: Command, before: str = "") -> CommandResult:
        """As the pool would; `before` is root's shell text in a mount namespace of the command's own."""
        become = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
        argv = (*become, "env", "-i", f"HOME={self.home}", "PATH=/usr/bin:/bin", *command.argv)
        if before:
            text = f'{before} || exit 200; exec "$@"'
            argv = ("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", text, "sh", *argv)
        done = subprocess.run(argv, input=command.stdin, capture_output=True, cwd="/", timeout=40)
        assert done.returncode != 200, done.stderr
        return CommandResult(
            exit_code=done.returncode,
            stdout=done.stdout.decode("utf-8", "surrogateescape"),
            stderr=done.stderr.decode("utf-8", "surrogateescape"),
        )

    def prepare(self, server_id: str = ID, **files: bytes) -> Path:
        result = self.run(prepare_command(server_id, files))
        assert result.stderr == ""
        return Path(parse_prepare(result, "alice", "login1"))

    def started(self, script: str) -> Path:
        """A folder whose script runs."""
        folder = self.prepare(**{"notebook.sh": script.encode()})
        assert self.run(start_on_login_node_command(str(folder))).exit_code == 0
        return folder

    def processes(self) -> list[str]:
        """The state and command line of each process of the account that still runs."""
        listed = subprocess.run(
            ["ps", "-o", "stat=,args=", "-u", str(UID)], capture_output=True, text=True
        ).stdout.splitlines()
        return [line for line in listed if not line.startswith("Z")]

    def ended(self, folder: Path, patience: str = "100") -> None:
        """End a server; the time until it is killed is `patience` tenths of a second."""
        command = end_command(str(folder))
        text = command.argv[2]
        assert "-eq 100" in text
        argv = (*command.argv[:2], text.replace("-eq 100", f"-eq {patience}"), *command.argv[3:])
        parse_end(self.run(replace(command, argv=argv)), "login1")


@pytest.fixture
def account() -> Iterator[Account]:
    require.root()
    base = Path(tempfile.mkdtemp(prefix="hpchub-t-"))
    base.chmod(0o755)
    home = base / "home of alice's"
    home.mkdir(mode=0o700)
    os.chown(home, UID, UID)
    account = Account(home)
    yield account
    assert account.processes() == []
    shutil.rmtree(base)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_folder_and_its_files_are_private(account: Account) -> None:
    """0700 and 0600, whatever the umask was; what is added later as well."""
    folder = account.prepare(launcher=b"print()", script=b"#!/bin/bash\n\x00\xff")
    assert folder == account.home / ".hpchub/servers" / ID
    parse_add(account.run(add_command(str(folder), {"late": b"x", "script": b"newer"})), "alice", "login1")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"launcher": 0o600, "script": 0o600, "late": 0o600}
    for made in (folder, folder.parent, folder.parent.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700 and made.stat().st_uid == UID
    assert (folder / "script").read_bytes() == b"newer"
    # Sites purge what looks old.
    assert time.time() - (folder / "script").stat().st_mtime < 60


def test_a_big_file_is_whole(account: Account) -> None:
    """More than a pipe holds."""
    content = os.urandom(300_000)
    assert (account.prepare(big=content) / "big").read_bytes() == content


def test_a_home_that_is_missing_or_closed(account: Account) -> None:
    """Each says so, with the system's own words."""
    missing = Account(account.home / "not there")
    with pytest.raises(AccountProblem, match=r"alice's home folder is missing or closed on login1: .*"):
        parse_prepare(missing.run(prepare_command(ID, {})), "alice", "login1")
    account.home.chmod(0)
    with pytest.raises(AccountProblem, match=r"missing or closed on login1: .*cd"):
        parse_prepare(account.run(prepare_command(ID, {})), "alice", "login1")
    account.home.chmod(0o700)


def test_a_home_that_is_not_writable(account: Account) -> None:
    """Says so; also where `.hpchub` is a file."""
    account.home.chmod(0o500)
    with pytest.raises(AccountProblem, match=r"not writable on login1: .*Permission denied"):
        parse_prepare(account.run(prepare_command(ID, {})), "alice", "login1")
    account.home.chmod(0o700)
    (account.home / ".hpchub").touch()
    with pytest.raises(AccountProblem, match="not writable"):
        parse_prepare(account.run(prepare_command(ID, {})), "alice", "login1")


@pytest.mark.parametrize("files", [{}, {"a": b"x" * 40_000}, {"a": b"x" * 40_000, "b": b"y", "c": b"z"}])
def test_a_home_that_is_full(account: Account, files: dict[str, bytes]) -> None:
    """Says that it is full, and leaves no half-made folder: for folders, a file, and files after it."""
    nodes = "nr_inodes=3" if not files else "size=24k"
    home = str(account.home).replace("'", "'\\''")
    before = f"mount -t tmpfs -o {nodes},uid={UID},gid={UID},mode=700 none '{home}'"
    command = prepare_command(ID, files)
    look = f"({command.argv[2]}\n); code=$?; ls .hpchub/servers 2>/dev/null; exit $code"
    argv = (*command.argv[:2], f"cd; {look}", *command.argv[3:])
    result = account.run(replace(command, argv=argv), before)
    assert ID not in result.stdout
    with pytest.raises(AccountProblem, match=r"full on login1: .*(No space left|Wrote only)") as caught:
        parse_prepare(result, "alice", "login1")
    assert "Remove some files" in caught.value.hint


def test_a_full_home_later(account: Account) -> None:
    """A file that does not fit any more is told in the same words."""
    result = CommandResult(exit_code=2, stderr="tar: b: Cannot write: Disk quota exceeded\n")
    with pytest.raises(AccountProblem, match="full on login1"):
        parse_add(result, "alice", "login1")
    with pytest.raises(AccountProblem, match="not writable"):
        parse_add(account.run(add_command(str(account.home / "gone"), {"a": b""})), "alice", "login1")


def test_old_folders_are_swept(account: Account) -> None:
    """A log older than a month goes; nothing younger, no server that may still run, and nothing that a
    link points to.
    """
    young, old = account.prepare("a" * 32), account.prepare("b" * 32, log=b"x")
    running = account.prepare("c" * 32, **{"launcher.py": b""})
    precious = account.home / "precious"
    precious.mkdir()
    (precious / "thesis").touch()
    link = old.parent / "link"
    link.symlink_to(precious)
    for path, days in ((young, 25), (old, 40), (running, 40), (precious, 400)):
        os.utime(path, (0, time.time() - days * 86400))
    os.utime(link, (0, 0), follow_symlinks=False)
    account.prepare()
    assert young.exists() and not old.exists() and (precious / "thesis").exists()
    assert running.exists()


def test_of_a_failed_server_only_the_log_stays(account: Account) -> None:
    """Its keys go at once."""
    folder = account.prepare(**{"server.log": b"why", "host_key": b"key", "launcher.py": b""})
    assert account.run(keep_log_command(str(folder))).exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["server.log"]


def test_an_id_cannot_be_an_option_or_shell_text(account: Account) -> None:
    """Ids are made by the bridge; even so, one that looks like something else is a folder's name."""
    for name in ("-rf", "$(touch pwned)", "a b;touch pwned"):
        assert account.prepare(name).name == name
    assert not list(account.home.rglob("pwned"))
    with pytest.raises(AccountProblem):
        parse_prepare(account.run(prepare_command("../../precious/x", {})), "alice", "login1")
    assert not (account.home / "precious").exists()


def test_a_server_and_its_outcome(account: Account) -> None:
    """It outlives the command that started it; its exit code and the log's end are read from the folder."""
    folder = account.started("cat >/dev/null; seq 30; umask; until [ -e go ]; do sleep 0.02; done; exit 3")
    until(lambda: "30" in (folder / "server.log").read_text())
    outcome = parse_outcome(account.run(outcome_command(str(folder))))
    assert outcome.exit_code is None
    (folder / "go").touch()
    until((folder / "exit_code").exists)
    outcome = parse_outcome(account.run(outcome_command(str(folder))))
    assert outcome.exit_code == 3 and len(outcome.log_tail.splitlines()) == 20
    account.run(remove_command(str(folder)))
    assert not folder.exists()
    assert parse_outcome(account.run(outcome_command(str(folder)))).exit_code is None


def test_a_server_can_be_interrupted(account: Account) -> None:
    """SIGINT and SIGQUIT have their default: Ctrl-C works in its terminals."""
    folder = account.started("grep SigIgn /proc/self/status")
    until((folder / "exit_code").exists)
    assert int((folder / "server.log").read_text().split()[1], 16) & 0b110 == 0


@pytest.mark.slow
def test_a_server_is_ended_at_once(account: Account) -> None:
    """Even one that was started a moment ago is found and ended."""
    for number in range(5):
        folder = account.prepare(f"{number:032}", **{"notebook.sh": b"exec sleep 60"})
        assert account.run(start_on_login_node_command(str(folder))).exit_code == 0
        account.ended(folder)
        assert account.processes() == []


@pytest.mark.slow
def test_a_server_may_take_its_time_to_end(account: Account) -> None:
    """The command returns after the last work is done, not when the signal is sent, and the code is kept."""
    folder = account.started(
        "trap 'sleep 0.5; touch saved; exit 0' TERM\n: >up; while :; do sleep 0.05; done"
    )
    until((folder / "up").exists)
    account.ended(folder)
    assert (folder / "saved").exists()
    assert parse_outcome(account.run(outcome_command(str(folder)))).exit_code == 0


@pytest.mark.slow
def test_a_server_that_ignores_the_signal_is_killed(account: Account) -> None:
    """With its children."""
    folder = account.started("trap '' TERM\n: >up; (sleep 61; sleep 62) & while :; do sleep 0.05; done")
    until((folder / "up").exists)
    account.ended(folder, patience="4")
    assert account.processes() == []


def test_a_foreign_process_of_that_pid_is_left_alone(account: Account) -> None:
    """Pids are used again: one that does not work in the folder is not the server."""
    folder = account.prepare()
    other = subprocess.Popen(
        ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "sleep", "60"],
        cwd=account.home, start_new_session=True,
    )  # fmt: skip
    (folder / "pid").write_text(str(other.pid))
    try:
        account.ended(folder)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_what_was_never_started_has_ended(account: Account) -> None:
    """No pid, no process; but no folder is doubt."""
    account.ended(account.prepare())
    with pytest.raises(HostUnreachable, match="could not be ended"):
        parse_end(account.run(end_command(str(account.home / "gone"))), "login1")


def test_tcp_port_and_key(account: Account) -> None:
    """Read together; before the launcher has written its port there is nobody yet."""
    folder = account.prepare(tcp_key=b"ab" * 32)
    with pytest.raises(NotListening):
        parse_tcp(account.run(tcp_command(str(folder))))
    (folder / "tcp_port").write_text("40123\n")
    port, key = parse_tcp(account.run(tcp_command(str(folder))))
    assert (port, key.reveal()) == (40123, "ab" * 32) and "abab" not in repr(key)


RESULTS = st.builds(
    CommandResult,
    exit_code=st.sampled_from([0, 0, 1, 91, 92, 93, -9]),
    stdout=st.one_of(st.text(), st.from_regex(r"[0-9]+\n[0-9a-f]{60,70}\n?", fullmatch=True)),
    stderr=st.text(),
)


@given(RESULTS)
@example(CommandResult(exit_code=0, stdout="9" * 5000 + "\n"))
@example(CommandResult(exit_code=0, stdout="١٢\nab"))
@example(CommandResult(exit_code=0, stdout="80\nnot hex"))
def test_any_answer_is_read_or_refused(result: CommandResult) -> None:
    """People own their shell and folder: no text of theirs raises anything but our own errors."""
    outcome = parse_outcome(result)
    assert outcome.exit_code is None or 0 <= outcome.exit_code < 1000
    for parse in (
        lambda: parse_prepare(result, "alice", "login1"),
        lambda: parse_add(result, "alice", "login1"),
        lambda: parse_end(result, "login1"),
        lambda: parse_tcp(result),
    ):
        try:
            parse()
        except HpchubError as error:
            assert error.message


def test_a_folder_that_somebody_else_made_is_refused(account: Account) -> None:
    """Before anything is sent to a server's sockets, their folder is known to be the account's own."""
    shared = account.home.parent
    own, foreign, link = account.home / "own", shared / "foreign", shared / "link"
    assert account.run(Command(argv=("mkdir", str(own)))).exit_code == 0
    foreign.mkdir()
    foreign.chmod(0o777)
    link.symlink_to(own)  # whoever made the link can turn it elsewhere
    parse_owner(account.run(Command(argv=owner_argv(str(own)))), "c1")
    for path in (foreign, link):
        with pytest.raises(NotAllowed, match="Somebody else"):
            parse_owner(account.run(Command(argv=owner_argv(str(path)))), "c1")
    with pytest.raises(HostUnreachable):
        parse_owner(account.run(Command(argv=owner_argv(str(account.home / "none")))), "c1")


def test_a_process_that_was_killed_with_its_shell_is_gone(account: Account) -> None:
    """Without an exit code, the process itself says whether the server lives."""
    folder = account.prepare(pid=b"4194304", **{"server.log": b"x"})  # above the kernel's largest pid
    assert parse_outcome(account.run(outcome_command(str(folder)))).gone


def test_a_log_is_shown_in_bounds(account: Account) -> None:
    """One endless line, or bytes that are no text, still make a page."""
    folder = account.prepare(**{"server.log": b"a" * 3_000_000 + b"\xff\n"})
    tail = parse_outcome(account.run(outcome_command(str(folder)))).log_tail
    assert len(tail) <= 8192
    tail.encode("utf-8")
