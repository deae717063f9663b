"""A real ssh-agent: what it holds, for how long, and what is said where it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest
from bridge.conftest import an_agent

from hpchub.core.command import Command
from hpchub.errors import NotAllowed, ProcessAway
from hpchub.ssh.key_agent import KeyAgent
from hpchub.ssh.pool import Pool

from .conftest import USER, RealNode, Source, Starter

PoolFor = Callable[..., Pool]


def a_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519", comment="a test's")


async def test_it_signs_with_what_it_was_given(tmp_path: Path) -> None:
    """And with nothing else; what is removed is gone, and to remove it twice is harmless."""
    key = a_key()
    with an_agent(tmp_path / "a.sock") as agent:
        await agent.add(key)
        assert await agent.held() == {key.public_data: "a test's"}
        assert key.convert_to_public().verify(b"text", await agent.sign(key.public_data, b"text"))
        with pytest.raises(NotAllowed, match="Log in again"):
            await agent.sign(a_key().public_data, b"text")
        for _ in range(2):
            await agent.remove(key.convert_to_public())
        assert await agent.held() == {}


async def test_it_forgets_in_time(tmp_path: Path) -> None:
    """A key with a lifetime is gone after it."""
    with an_agent(tmp_path / "a.sock") as agent:
        await agent.add(a_key(), lifetime_s=1)
        assert len(await agent.held()) == 1
        async with asyncio.timeout(5):
            while await agent.held():  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.1)


async def test_a_crowd_asks_at_once(tmp_path: Path) -> None:
    """Two hundred signatures at a time: each is the one that was asked for."""
    key = a_key()
    with an_agent(tmp_path / "a.sock") as agent:
        await agent.add(key)
        texts = [b"%d" % number for number in range(200)]
        signed = await asyncio.gather(*(agent.sign(key.public_data, text) for text in texts))
    assert all(key.convert_to_public().verify(text, one) for text, one in zip(texts, signed, strict=True))


async def test_an_agent_that_is_away(tmp_path: Path) -> None:
    """None, a dead one, and one that does not speak: ProcessAway, which may pass."""
    nobody = KeyAgent(tmp_path / "nobody.sock")
    with an_agent(tmp_path / "dead.sock") as dead:
        await dead.held()

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(hang_up, tmp_path / "mute.sock"):
        for agent in (nobody, dead, KeyAgent(tmp_path / "mute.sock")):
            with pytest.raises(ProcessAway, match="key agent") as caught:
                await agent.sign(b"", b"")
            assert caught.value.retryable


async def test_a_real_sshd_takes_its_signature(
    bash_node: RealNode, pool_for: PoolFor, source: Source, tmp_path: Path
) -> None:
    """A handshake with a certificate whose key only the agent has; without the key, our own refusal."""
    with an_agent(tmp_path / "a.sock") as agent:
        key = source.key
        assert isinstance(key, asyncssh.SSHKey)
        source.pair = agent.pair(key.convert_to_public())
        async with pool_for(bash_node.port) as pool:
            with pytest.raises(NotAllowed, match="Log in again"):
                await pool.node_of(USER, "alpha")
            await agent.add(key)
            assert await pool.node_of(USER, "alpha")


async def test_a_credential_that_is_away_is_no_node_s_fault(
    fake_node: Starter, pool_for: PoolFor, source: Source, tmp_path: Path
) -> None:
    """The signer's or the agent's absence is told as such, and no login node rests for it."""
    source.pair = KeyAgent(tmp_path / "nobody.sock").pair(source.key.convert_to_public())
    async with fake_node() as node, pool_for(node.port) as pool:
        with pytest.raises(ProcessAway):
            await pool.run("alice", "alpha", Command(argv=("echo",)))
        assert not pool.rests("alpha", "login1")
