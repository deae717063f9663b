"""One simulated cluster as a process: `python -m bench.crowd.simulator SETTINGS.json`.

It listens on a unix socket as well, for the bench: GET /counts, POST /release.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import asyncssh
from aiohttp import web

from bench.crowd.login_node import SimulatedCluster


async def _serve(settings: dict[str, Any]) -> None:
    host_key = asyncssh.read_private_key(settings["host_key"])
    ca = asyncssh.import_public_key(settings["ca"])
    async with SimulatedCluster(host_key, ca) as cluster:
        for address in settings["addresses"]:
            await cluster.listen(address, settings["port"])
        runner = web.AppRunner(_control(cluster), access_log=None)
        await runner.setup()
        await web.UnixSite(runner, settings["control"]).start()
        await asyncio.Event().wait()


def _control(cluster: SimulatedCluster) -> web.Application:
    async def counts(_request: web.Request) -> web.Response:
        return web.json_response(
            {
                "counts": cluster.counts,
                "hub_calls": cluster.hub_calls,
                "unknown": cluster.unknown,
                "jobs": len(cluster.slurm.jobs),
            }
        )

    async def release(_request: web.Request) -> web.Response:
        cluster.slurm.release()
        return web.json_response({})

    app = web.Application()
    app.add_routes([web.get("/counts", counts), web.post("/release", release)])
    return app


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
