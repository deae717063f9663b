"""Lines to kernels in jobs: what a silent node, or a line that will not close, may hold up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpec

from hpchub.core.job import JobState, JobStatus
from hpchub.errors import HostUnreachable, SiteError
from hpchub.kernels import claims, dialing, slurm
from hpchub.kernels import line as line_module
from hpchub.kernels.allocation import Allocation, Place
from hpchub.kernels.claims import Purpose
from hpchub.kernels.line import Line
from hpchub.remote.kernel_agent import GREETING, proof
from support.kernel_jobs import until


async def test_a_node_that_falls_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel to a kernel that was just started has a limit, like control."""
    monkeypatch.setattr(dialing, "_CHANNEL_S", 0.1)
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


def test_no_room_for_sockets_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a page of Python's."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(SiteError, match=r"sockets cannot be made on this node: .*nowhere"):
        Line(Place(address="127.0.0.1", port=1, node="here"), bytes(32), "kernel-1")


async def test_a_line_that_will_not_close_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A step that will not end, say: it takes no error's place, and who ends the kernel cancels its job."""
    line = Line(Place(address="127.0.0.1", port=1, node="here"), bytes(32), "kernel-1")
    with monkeypatch.context() as patched:
        patched.setattr(line_module, "_END_S", 0.1)
        patched.setattr(line, "_close", asyncio.Event().wait)
        await asyncio.to_thread(line.close)
    await asyncio.to_thread(line.close)
    assert caplog.text.count("kernel.line_not_closed node=here") == 1


async def test_a_server_that_stops_waits_for_no_line_in_its_loop(tmp_path: Path) -> None:
    """It may take seconds to close one; the next server can have the kernel once it is closed."""
    goes = threading.Event()
    purpose = Purpose(kernel="node", notebook="/home/a.ipynb", settings="")
    provisioner = slurm.SlurmProvisioner(kernel_id="1", kernel_spec=KernelSpec())
    provisioner._claim = claims.claim(tmp_path, purpose)
    provisioner._job = Allocation(tmp_path, "4242")
    cuts: list[bool] = []
    line: Any = SimpleNamespace(cut=lambda: cuts.append(True), close=lambda: goes.wait(20))
    provisioner._line = line
    began = time.monotonic()
    provisioner._leave()
    assert cuts, "until it is closed Jupyter's request to end reaches the kernel"
    assert claims._is_held(tmp_path)
    assert time.monotonic() - began < 15
    goes.set()
    await until(lambda: not claims._is_held(tmp_path))


async def test_a_line_that_is_cut_carries_nothing_more() -> None:
    """From that moment on, however long the closing takes; and who comes again is not let in either."""
    key, heard = bytes(32), asyncio.Event()

    async def be_the_agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{GREETING} 00\n".encode())
        role, nonce, _ = (await reader.readline()).decode().split()
        writer.write(f"ok {proof(key, 'agent', role, '00', nonce)}\n".encode())
        if await reader.read(5) == b"early":
            heard.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(be_the_agent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    line = Line(Place(address="127.0.0.1", port=port, node="here"), key, "kernel-1")
    await line.listen()
    control = f"{line.connection_info['ip']}-{line.connection_info['control_port']}"
    with socket.socket(socket.AF_UNIX) as jupyter, socket.socket(socket.AF_UNIX) as again:
        try:
            jupyter.connect(control)
            jupyter.sendall(b"early")
            await asyncio.wait_for(heard.wait(), 10)
            line.cut()
            with pytest.raises(BrokenPipeError):
                jupyter.sendall(b"end, please")
            again.connect(control)
            assert await asyncio.to_thread(again.recv, 1) == b""
        finally:
            await asyncio.to_thread(line.close)
            server.close()


@pytest.mark.parametrize("steps", range(5))
async def test_who_connects_when_a_line_stops_is_not_kept(steps: int) -> None:
    """However far asyncio is with it: a Jupyter that stays connected to nothing hears no reason."""
    line = Line(Place(address="127.0.0.1", port=1, node="here"), bytes(32), "kernel-1")
    await line.listen()

    async def connect_and_stop() -> None:
        jupyter.connect(f"{line.connection_info['ip']}-{line.connection_info['hb_port']}")
        for _ in range(steps):
            await asyncio.sleep(0)
        await line._doors.write("It has ended.")

    with socket.socket(socket.AF_UNIX) as jupyter:
        jupyter.settimeout(10)
        try:
            await line._here(connect_and_stop())
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(jupyter.recv, 1) == b""
        finally:
            await asyncio.to_thread(line.close)


async def test_a_node_that_cannot_be_reached_holds_up_no_other_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To close a line that was never open may take seconds too: Jupyter's loop is free meanwhile."""

    class Unreachable(Line):
        async def open(self) -> None:
            raise HostUnreachable("The node does not answer.")

        def close(self) -> None:
            closed_in.append(threading.current_thread())
            super().close()

    async def wait(*_: object) -> Place:
        return Place(address="127.0.0.1", port=1, node="gone")

    async def look() -> JobStatus:
        return JobStatus(state=JobState.FAILED, native="FAILED")

    closed_in: list[threading.Thread] = []
    monkeypatch.setattr(slurm, "Line", Unreachable)
    provisioner = slurm.SlurmProvisioner(kernel_id="1", kernel_spec=KernelSpec())
    job: Any = SimpleNamespace(id="4242", wait=wait, look=look, key=bytes(32))
    mine: Any = SimpleNamespace(kernel_id="kernel-1")
    with pytest.raises(HostUnreachable):
        await provisioner._connect(job, mine, Purpose(kernel="node", notebook="", settings=""))
    assert len(closed_in) == 1
    assert closed_in[0] is not threading.current_thread()


async def test_a_kernel_that_ends_at_once_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end comes right behind the word that it was started, and is not forgotten over that."""
    line = Line(Place(address="127.0.0.1", port=1, node="here"), bytes(32), "kernel-1")

    async def answer(_request: dict[str, Any]) -> None:
        line._take({"event": "started"})
        line._take({"event": "state", "runs": False, "code": 7, "memory": 0})

    monkeypatch.setattr(line, "_send", answer)
    try:
        await line.start({})
        assert (line.runs, line.exit_code) == (False, 7)
    finally:
        await asyncio.to_thread(line.close)
