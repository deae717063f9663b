"""The shared server of a no-op spawner: `python -m bench.crowd.stub PORT` answers all with `{}`."""

from __future__ import annotations

import asyncio
import sys

from bench.crowd.noop_notebook import NoopNotebook


async def _main(port: int) -> None:
    stub = NoopNotebook("", {}, lambda _work: None)
    server = await asyncio.start_server(stub.serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
