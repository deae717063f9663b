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


@pytest.mark.slow
async def test_a_notebook_that_listens_late_is_told(tmp_path: Path) -> None:
    """The server's own listener may be back before the notebook's: both are waited for."""
    path = tmp_path / "k-2"
    context = zmq.asyncio.Context()
    cells = Cells(path, KEY)
    kernel = context.socket(zmq.XPUB)
    kernel.bind(f"ipc://{path}")
    cells.follow()
    await asyncio.wait_for(kernel.recv(), _LIMIT_S)
    session = Session(key=KEY, signature_scheme="hmac-sha256")
    busy = session.msg(
        "status", {"execution_state": "busy"}, parent={"header": session.msg_header("execute_request")}
    )
    await kernel.send_multipart(session.serialize(busy, ident=b"kernel.1.status"))
    await asyncio.wait_for(kernel.recv(), _LIMIT_S)  # it has read it: it subscribes to the states alone
    kernel.close(linger=0)
    path.unlink(missing_ok=True)
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


async def test_a_socket_that_cannot_be_made_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who reports why a kernel ended gets no other error in its place."""
    cells = Cells(tmp_path / "gone" / "k-2", KEY)
    cells._asked = {"msg_id": "1", "msg_type": "execute_request"}
    await cells.write("The job is over.", 0)
    cells.close()
    assert "kernel.cell_not_told error=No such file or directory" in caplog.text
