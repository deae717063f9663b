"""Proportional set sizes (smaps_rollup's Pss) of the bridge and the signer, in MiB."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.private_demo import Demo
from bench.starts import COMPUTE, LOGIN, USER
from bench.web import Hub, log_in

EACH = 4
_SETTLE_S = 1.0
_OTHERS = ("bob", "emil", "Hans.Peter-2_x", "a_name_with_32_characters_in_all")


def measure(demo: Demo, hub: Hub, say: Callable[[str], None]) -> dict[str, float]:
    """At rest, then with idle connections, then with servers on a login node, then in jobs too."""
    found = {"bridge at rest": _pss(demo, "bridge"), "signer at rest": _pss(demo, "signer")}
    url = f"http://127.0.0.1:{demo.port}/"
    # The first connection and the first start bring in code that every later one shares.
    log_in(url, USER, demo.info["users"][USER], open_form=True)
    used = _pss(demo, "bridge")
    for user in _OTHERS:
        log_in(url, user, demo.info["users"][user], open_form=True)
    found["a person with an idle connection"] = (_pss(demo, "bridge") - used) / len(_OTHERS)
    hub.start(USER, COMPUTE)
    hub.stop(USER)
    demo.wait_until_quiet()
    found["bridge after a first start"] = _pss(demo, "bridge")
    for name, options in (("login node", LOGIN), ("job", COMPUTE)):
        before = _pss(demo, "bridge")
        _start_many(hub, name, options)
        found[f"a running server ({name})"] = (_pss(demo, "bridge") - before) / EACH
    found[f"bridge with {2 * EACH} servers"] = _pss(demo, "bridge")
    found[f"signer after {2 * EACH} servers"] = _pss(demo, "signer")
    for number in range(EACH):
        for name in ("login node", "job"):
            hub.stop(USER, _server_name(name, number))
    demo.wait_until_quiet()
    for name, size in found.items():
        say(f"  {name}: {size:.2f} MiB")
    return found


def _start_many(hub: Hub, kind: str, options: object) -> None:
    names = [_server_name(kind, number) for number in range(EACH)]
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda name: hub.start(USER, options, name), names):
            pass


def _server_name(kind: str, number: int) -> str:
    return f"{kind.split(maxsplit=1)[0]}{number}"


def _pss(demo: Demo, daemon: str) -> float:
    time.sleep(_SETTLE_S)
    text = Path(f"/proc/{demo.pid(daemon)}/smaps_rollup").read_text(encoding="ascii")
    return int(text.partition("\nPss:")[2].split()[0]) / 1024
