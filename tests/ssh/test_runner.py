from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpchub.core.command import Command
from hpchub.errors import AccountProblem, HostUnreachable, InvalidRequest, UnexpectedOutput
from hpchub.ssh.limits import Limits
from hpchub.ssh.pool import Pool
from hpchub.ssh.runner import remote_text, split_noise
from support.children import frozen

from .conftest import USER, RealNode, start_sshd, stop_sshd

SHELLS = [path for name in ("bash", "dash", "zsh", "tcsh", "fish", "ksh") if (path := shutil.which(name))]
NASTY = [
    "plain", "", " ", "a b", "it's", '"', "$(id)", "`id`", "$HOME", "!!", "\\", "\\\\n", "a\nb\n", "\t",
    "*", "~", "-n", ";rm", "é\u2028", "\udcff\udc80", "#", "%s", "{a,b}", "=ls", "^", "\\0101", "'\\''",
]  # fmt: skip

PoolFor = Callable[..., Pool]


@pytest.mark.parametrize("shell", SHELLS)
def test_any_argument_survives_any_login_shell(shell: str) -> None:
    """What a login shell gets as its -c text runs exactly the argv, byte for byte."""
    text = remote_text(["printf", "%s\\0", *NASTY], "mark")
    done = subprocess.run([shell, "-c", text], capture_output=True, check=True)
    noise, out = split_noise(done.stdout, "mark") or (b"?", b"?")
    assert noise == b""
    assert out.split(b"\0")[:-1] == [word.encode("utf-8", "surrogateescape") for word in NASTY]
    assert done.stderr == b"mark\n"


_WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=30, deadline=None)
@given(st.lists(_WORD, min_size=1, max_size=4))
def test_random_arguments_survive(words: list[str]) -> None:
    """No value escapes its quoting."""
    text = remote_text(["printf", "%s\\0", *words], "mark")
    done = subprocess.run(["/bin/dash", "-c", text], capture_output=True, check=True)
    assert done.stdout == b"mark\n" + b"".join(word.encode() + b"\0" for word in words)


def test_text_is_plain() -> None:
    """The text for the login shell holds nothing that a shell reads differently inside quotes."""
    payload = remote_text(["echo", *NASTY], "mark").rsplit(" hpchub '", 1)[1].removesuffix("'")
    assert not set(payload) & set("'!\n\"$`~#*") and "\\\\" not in payload


@pytest.mark.parametrize("argv", [[], ["a\0b"], ["echo", "x" * 200_000]])
def test_impossible_commands_are_refused(argv: list[str]) -> None:
    """NUL, nothing, and more than Linux passes in one argument are refused before anything is sent."""
    with pytest.raises(InvalidRequest):
        remote_text(argv, "mark")


async def test_result_on_a_real_sshd(bash_node: RealNode, pool_for: PoolFor) -> None:
    """Exit code, both outputs and stdin come through OpenSSH; odd bytes survive."""
    async with pool_for(bash_node.port) as pool:
        command = Command(argv=("sh", "-c", "cat; printf '\\377'; echo e >&2; exit 7"), stdin=b"in\0\xfe\n")
        result = await pool.run(USER, "alpha", command)
    assert result.exit_code == 7
    assert result.stdout.encode("utf-8", "surrogateescape") == b"in\0\xfe\n\xff"
    assert result.stderr == "e\n" and result.noise == ""


async def test_killed_command_has_a_negative_code(bash_node: RealNode, pool_for: PoolFor) -> None:
    """A command that a signal ended answers with that signal's number, negative."""
    async with pool_for(bash_node.port) as pool:
        result = await pool.run(USER, "alpha", Command(argv=("sh", "-c", "kill -9 $$")))
    assert result.exit_code == -9


async def test_large_input_unread_and_large_output(bash_node: RealNode, pool_for: PoolFor) -> None:
    """A command may ignore its input; more output than the limit is an error, not memory."""
    async with pool_for(bash_node.port, limits=Limits(output_bytes=100_000)) as pool:
        unread = Command(argv=("true",), stdin=b"x" * 5_000_000)
        assert (await pool.run(USER, "alpha", unread)).exit_code == 0
        with pytest.raises(UnexpectedOutput, match="head"):
            await pool.run(USER, "alpha", Command(argv=("head", "-c", "5000000", "/dev/zero")))
        assert (await pool.run(USER, "alpha", Command(argv=("echo", "ok")))).stdout == "ok\n"


async def test_slow_command_is_named(bash_node: RealNode, pool_for: PoolFor) -> None:
    """A command that takes too long is given up, by name, and may be tried again."""
    async with pool_for(bash_node.port) as pool:
        with pytest.raises(HostUnreachable, match="sleep on login1") as caught:
            async with asyncio.timeout(60):
                await pool.run(USER, "alpha", Command(argv=("sleep", "600"), timeout_s=0.3))
        assert caught.value.retryable


async def test_slow_command_is_killed(bash_node: RealNode, pool_for: PoolFor) -> None:
    """What was given up does not stay behind on the node, nor does what it has started."""
    note = bash_node.home / "pids"
    text = 'sleep 60 & echo $$ $! >"$1.new"; mv "$1.new" "$1"; wait'
    async with pool_for(bash_node.port) as pool:
        for limit_s in (1, 5, 25):  # on a busy machine one second may be over before it has started anything
            command = Command(argv=("sh", "-c", text, "sh", str(note)), timeout_s=limit_s)
            with pytest.raises(HostUnreachable):
                await pool.run(USER, "alpha", command)
            if note.exists():
                break
        pids = note.read_text().split()
        assert len(pids) == 2
        async with asyncio.timeout(5):
            while any(Path(f"/proc/{pid}").exists() for pid in pids):  # noqa: ASYNC110  no child of ours
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def noisy_node(ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey) -> Iterator[RealNode]:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    node = start_sshd(ca, host_key, "/bin/bash")
    yield node
    stop_sshd(node)


async def test_noise_of_the_login_shell_is_kept_apart(noisy_node: RealNode, pool_for: PoolFor) -> None:
    """What ~/.bashrc prints, even without a line end, is no part of the command's output."""
    (noisy_node.home / ".bashrc").write_text("printf 'Welcome!\\nno line end'; echo warn >&2\n")
    async with pool_for(noisy_node.port) as pool:
        result = await pool.run(USER, "alpha", Command(argv=("echo", "answer")))
    assert (result.stdout, result.stderr) == ("answer\n", "")
    assert result.noise == "Welcome!\nno line end"


async def test_login_shell_that_exits_is_explained(noisy_node: RealNode, pool_for: PoolFor) -> None:
    """A start-up file that exits is an AccountProblem that names node, code and what was printed."""
    (noisy_node.home / ".bashrc").write_text("echo no interactive use; exit 3\n")
    async with pool_for(noisy_node.port) as pool:
        with pytest.raises(
            AccountProblem, match=r"login1 ended with exit code 3.*no interactive use"
        ) as caught:
            await pool.run(USER, "alpha", Command(argv=("echo", "answer")))
        assert ".bashrc" in caught.value.hint
        with pytest.raises(AccountProblem, match="no interactive use"):
            await pool.open_session(USER, "alpha", ["cat"], node="login1")


async def test_what_does_not_end_is_killed(bash_node: RealNode, pool_for: PoolFor) -> None:
    """A command that ignores the end of its input, as an srun does whose node is gone, is not left behind."""
    async with pool_for(bash_node.port) as pool:
        stays = ["/bin/sh", "-c", "echo $$; exec sleep 60"]
        session = await pool.open_session(USER, "alpha", stays, node="login1")
        pid = int(await session.streams.reader.readline())
        assert Path(f"/proc/{pid}").exists()
        await session.close()
        await _ends(pid)


async def test_what_does_not_end_is_killed_though_nobody_waits(
    bash_node: RealNode, pool_for: PoolFor
) -> None:
    """A close that is cancelled, as when a server is stopped meanwhile, kills it too and frees its place."""
    async with pool_for(bash_node.port) as pool:
        stays = ["/bin/sh", "-c", "echo $$; exec sleep 60"]
        session = await pool.open_session(USER, "alpha", stays, node="login1")
        pid = int(await session.streams.reader.readline())
        closing = asyncio.ensure_future(session.close())
        await asyncio.sleep(0.1)
        closing.cancel()
        await asyncio.wait({closing})
        await _ends(pid)
        assert {one.sessions for one in pool.connections()} == {0}


async def test_a_start_that_is_given_up_leaves_nothing(bash_node: RealNode, pool_for: PoolFor) -> None:
    """Whoever is cancelled while the login shell has not come to the command yet leaves no process there."""
    startup, written = bash_node.home / ".bashrc", bash_node.home / "shell.pid"
    startup.write_text("echo $$ >~/shell.pid; exec sleep 60\n")
    try:
        async with pool_for(bash_node.port) as pool:
            opening = asyncio.create_task(pool.open_session(USER, "alpha", ["cat"], node="login1"))
            async with asyncio.timeout(30):
                while not written.exists() or not written.read_text():  # noqa: ASYNC110  another process's file
                    await asyncio.sleep(0.02)
            opening.cancel()
            await asyncio.wait({opening})
            await _ends(int(written.read_text()))
            assert {one.sessions for one in pool.connections()} == {0}
    finally:
        startup.unlink()
        written.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("gives_up", ["cancelled", "in time"])
async def test_a_session_that_opens_too_late_is_closed(
    gives_up: str, ca: asyncssh.SSHKey, host_key: asyncssh.SSHKey, pool_for: PoolFor
) -> None:
    """Nobody waits for it any more, so sshd is soon rid of it: of the one that it allows, the next is had."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace")
    node = start_sshd(ca, host_key, "/bin/bash", "MaxSessions 1\n")
    stays, true = Command(argv=("sleep", "600"), timeout_s=0.3), Command(argv=("true",))
    try:
        async with pool_for(node.port, limits=Limits()) as pool, asyncio.timeout(30):
            assert (await pool.run(USER, "alpha", true)).exit_code == 0
            with frozen(node.process.pid):
                late = asyncio.create_task(pool.run(USER, "alpha", stays))
                if gives_up == "cancelled":
                    await asyncio.sleep(0.1)
                    late.cancel()
                await asyncio.gather(late, return_exceptions=True)
            while await _refused(pool, true):
                pass
            assert len(pool.connections()) == 1
    finally:
        stop_sshd(node)


async def _refused(pool: Pool, command: Command) -> bool:
    """Whether sshd has no session left for a command."""
    try:
        return (await pool.run(USER, "alpha", command)).exit_code != 0
    except HostUnreachable as error:
        assert "opens no session" in str(error)
        return True


async def _ends(pid: int) -> None:
    async with asyncio.timeout(5):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110  it is no child of ours
            await asyncio.sleep(0.02)
