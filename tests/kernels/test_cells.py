"""What is written under a cell in the place of a kernel that is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
from jupyter_client.session import Session

from hpchub.kernels.cells import Cells

KEY = b"of a test"
_LATE_S = 0.6
_LIMIT_S = 10.0


def _listen(context: zmq.asyncio.Context, path: Path) -> zmq.asyncio.Socket:
    listener = context.socket(zmq.SUB)
    listener.subscribe(b"")
    listener.connect(f"ipc://{path}")
    return listener


async def _read(listener: zmq.asyncio.Socket) -> dict[str, Any]:
    session = Session(key=KEY, signature_scheme="hmac-sha256")
    frames = await asyncio.wait_for(listener.recv_multipart(), _LIMIT_S)
    found: dict[str, Any] = session.deserialize(session.feed_identities(frames)[1])
    return found


async def _kernel_dies(context: zmq.asyncio.Context, path: Path, cells: Cells) -> dict[str, Any]:
    """A kernel is followed into a cell, and is gone: the message by which it told of the cell."""
    kernel = context.socket(zmq.XPUB)
    kernel.bind(f"ipc://{path}")
    cells.follow()
    await asyncio.wait_for(kernel.recv(), _LIMIT_S)
    session = Session(key=KEY, signature_scheme="hmac-sha256")
    busy: dict[str, Any] = session.msg(
        "status", {"execution_state": "busy"}, parent={"header": session.msg_header("execute_request")}
    )
    await kernel.send_multipart(session.serialize(busy, ident=b"kernel.1.status"))
    for _ in range(2):  # it has read it: it subscribes to the states alone, and no more to all
        await asyncio.wait_for(kernel.recv(), _LIMIT_S)
    kernel.close(linger=0)
    path.unlink(missing_ok=True)
    return busy


@pytest.mark.slow
async def test_a_notebook_that_listens_late_is_told(tmp_path: Path) -> None:
    """The server's own listener may be back before the notebook's: both are waited for."""
    path = tmp_path / "k-2"
    context = zmq.asyncio.Context()
    cells = Cells(path, KEY)
    busy = await _kernel_dies(context, path, cells)
    try:
        server = _listen(context, path)
        writing = asyncio.create_task(cells.write("The job is over.", 2))
        await asyncio.sleep(_LATE_S)
        notebook = _listen(context, path)
        await writing
        for listener in (server, notebook):
            told = await _read(listener)
            assert told["content"] == {"name": "stderr", "text": "The job is over.\n"}
            assert told["parent_header"]["msg_id"] == busy["parent_header"]["msg_id"]
    finally:
        cells.close()
        context.destroy(linger=0)


@pytest.mark.slow
async def test_our_own_listener_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be back before it is closed, and before the notebook's: the text is for the notebook."""
    path = tmp_path / "k-2"
    context = zmq.asyncio.Context()
    cells = Cells(path, KEY)
    await _kernel_dies(context, path, cells)
    stop, left = cells.stop, [cells._task]
    try:
        with monkeypatch.context() as patch:
            patch.setattr(cells, "stop", lambda: None)  # it is not closed at all
            writing = asyncio.create_task(cells.write("The job is over.", 1))
            await asyncio.sleep(_LATE_S)
        assert not writing.done()
        notebook = _listen(context, path)
        await writing
        assert (await _read(notebook))["content"]["text"] == "The job is over.\n"
    finally:
        stop()
        await asyncio.wait([one for one in left if one is not None])
        cells.close()
        context.destroy(linger=0)


async def test_a_socket_that_cannot_be_made_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who reports why a kernel ended gets no other error in its place."""
    cells = Cells(tmp_path / "gone" / "k-2", KEY)
    cells._asked = {"msg_id": "1", "msg_type": "execute_request"}
    await cells.write("The job is over.", 0)
    cells.close()
    assert "kernel.cell_not_told error=No such file or directory" in caplog.text
