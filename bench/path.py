"""Bytes and WebSocket round trips through the whole data path, against `ssh -L`, turn by turn."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from bench.private_demo import Demo
from bench.starts import COMPUTE, USER
from bench.tunnel import lay_out
from bench.web import Connection, Hub, Place, log_in
from hpchub.bridge.client import BridgeClient

BIG_BYTES = 128 * 1024 * 1024
ROUND_TRIPS = 400
_CHUNK = 1024 * 1024
_ECHO = "stty -echo; exec cat\r"


@dataclass(slots=True)
class Path:
    """Each way's measurements, in MB/s and in round trips per second, by the way's name."""

    megabytes_per_s: dict[str, list[float]] = field(default_factory=dict)
    trips_per_s: dict[str, list[float]] = field(default_factory=dict)


def measure(demo: Demo, hub: Hub, count: int, say: Callable[[str], None]) -> Path:
    """One server on a compute node; every way to it, `count` times in turn after a warm-up each."""
    _put_big_file(demo)
    log_in(f"http://127.0.0.1:{demo.port}/", USER, demo.info["users"][USER])
    hub.start(USER, COMPUTE)
    server_id = hub.server(USER)["state"]["server_id"]
    server = asyncio.run(BridgeClient(demo.sockets / "bridge.sock").server(server_id))
    tunnel = lay_out(demo, USER, server)
    found = Path()
    with tunnel.open("same") as same, tunnel.open("default") as default:
        ways = {
            "hpchub": hub.place,
            "ssh -L, same cipher": Place(unix=str(same)),
            "ssh -L, its default": Place(unix=str(default)),
        }
        for number in range(count + 1):
            for name, place in ways.items():
                speed = BIG_BYTES / 1e6 / _fetch(place, hub.token)
                trips = ROUND_TRIPS / asyncio.run(_round_trips(place, hub.token))
                if number:
                    found.megabytes_per_s.setdefault(name, []).append(speed)
                    found.trips_per_s.setdefault(name, []).append(trips)
    for name in ways:
        speed = statistics.median(found.megabytes_per_s[name])
        trips = statistics.median(found.trips_per_s[name])
        say(f"  {name}: {speed:.0f} MB/s, {trips:.0f} round trips/s")
    hub.stop(USER)
    return found


def _put_big_file(demo: Demo) -> None:
    """A file that Jupyter's static handler streams: its `/files/` would first read all of it into memory."""
    home = demo.homes / USER
    owner = home.stat()
    folder, config = home / "bench-static", home / ".jupyter"
    for one in (folder, config):
        one.mkdir(exist_ok=True)
        os.chown(one, owner.st_uid, owner.st_gid)
    with (folder / "big.bin").open("wb") as file:
        for _ in range(BIG_BYTES // _CHUNK):
            file.write(os.urandom(_CHUNK))
    os.chown(folder / "big.bin", owner.st_uid, owner.st_gid)
    settings = {"ServerApp": {"extra_static_paths": [f"/home/{USER}/bench-static"]}}
    (config / "jupyter_server_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _fetch(place: Place, token: str) -> float:
    """Seconds for the whole file."""
    connection = Connection(place)
    try:
        headers = {"Authorization": f"token {token}", "Accept-Encoding": "identity"}
        began = time.monotonic()
        connection.request("GET", f"/user/{USER}/static/big.bin", headers=headers)
        answer = connection.getresponse()
        buffer = memoryview(bytearray(_CHUNK))
        size = 0
        while read := answer.readinto(buffer):
            size += read
        took = time.monotonic() - began
        if answer.status != 200 or size != BIG_BYTES:
            raise RuntimeError(f"fetching the file answered {answer.status} with {size} bytes")
        return took
    finally:
        connection.close()


async def _round_trips(place: Place, token: str) -> float:
    """Seconds for all round trips: a line to `cat` in a terminal, and back."""
    connector = aiohttp.UnixConnector(place.unix) if place.unix else aiohttp.TCPConnector()
    base = "http://localhost" if place.unix else f"http://{place.host}:{place.port}"
    headers = {"Authorization": f"token {token}"}
    async with aiohttp.ClientSession(base, connector=connector, headers=headers) as client:
        async with client.post(f"/user/{USER}/api/terminals", json={}) as answer:
            answer.raise_for_status()
            name = (await answer.json())["name"]
        async with client.ws_connect(f"/user/{USER}/terminals/websocket/{name}") as socket:
            await socket.send_json(["stdin", _ECHO])
            await _echo(socket, "ready", tries=50)
            for number in range(20):
                await _echo(socket, f"warm-{number}")
            began = time.monotonic()
            for number in range(ROUND_TRIPS):
                await _echo(socket, f"line-{number}")
            took = time.monotonic() - began
        async with client.delete(f"/user/{USER}/api/terminals/{name}") as answer:
            answer.raise_for_status()
    return took


async def _echo(socket: aiohttp.ClientWebSocketResponse, text: str, tries: int = 1) -> None:
    """Send a line and wait until it is back; again while the shell is still starting."""
    for _ in range(tries):
        await socket.send_json(["stdin", f"{text}\n"])
        seen = ""
        try:
            async with asyncio.timeout(10 if tries == 1 else 0.2):
                while f"{text}\r\n" not in seen:
                    kind, *rest = await socket.receive_json()
                    seen += str(rest[0]) if kind == "stdout" else ""
                return
        except TimeoutError:
            continue
    raise TimeoutError("the terminal does not answer")
