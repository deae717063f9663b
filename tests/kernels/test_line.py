"""Lines to kernels in jobs: what a silent node, or a line that will not close, may hold up."""

from __future__ import annotations

import asyncio

import pytest

from hpchub.kernels import line as line_module
from hpchub.kernels.allocation import Place
from hpchub.kernels.line import Line
from hpchub.remote.kernel_agent import GREETING


async def test_a_node_that_falls_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel to a kernel that was just started has a limit, like control."""
    monkeypatch.setattr(line_module, "_CHANNEL_S", 0.1)
    left = asyncio.Event()

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{GREETING} 00\n".encode())
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(fall_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    line = Line(Place(address="127.0.0.1", port=port, node="here"), bytes(32), "kernel-1")
    try:
        assert await asyncio.wait_for(line.is_listening(), 10) is False
        await asyncio.wait_for(left.wait(), 10)
    finally:
        await asyncio.to_thread(line.close)
        server.close()
