"""A small HTTPS server on the loopback address, for authorities that cannot be had as packages."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from support.certificates import make_certificates


@asynccontextmanager
async def https(app: web.Application, folder: Path) -> AsyncIterator[str]:
    """Its URL. `folder` gets `ca.pem`, which vouches for it, and `other_ca.pem`, which does not."""
    make_certificates(folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "server.pem", folder / "server.key")
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
