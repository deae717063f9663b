"""From POST to ready: hpchub from outside the cluster, its rivals inside, turn by turn."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import asyncssh

from bench.private_demo import Demo
from bench.web import Hub, log_in
from hpchub.bridge.client import BridgeClient
from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.signer.client import SignerClient

USER = "alice"

COMPUTE = {"placement": "compute", "partition": "cpu", "time": "01:00:00", "cpus": 1, "memory": "1G"}
LOGIN = {"placement": "login"}


@dataclass(slots=True)
class Starts:
    """Seconds of each start of one side, and where they went, phase by phase."""

    seconds: list[float] = field(default_factory=list)
    phases: list[dict[str, float]] = field(default_factory=list)

    def add(self, seconds: float, phases: dict[str, float]) -> None:
        """One more start."""
        self.seconds.append(seconds)
        self.phases.append(phases)

    def phase_medians(self) -> dict[str, float]:
        """Median seconds of each phase, in order."""
        names = list(dict.fromkeys(name for one in self.phases for name in one))
        return {name: statistics.median([one[name] for one in self.phases if name in one]) for name in names}


@dataclass(slots=True)
class Ours:
    """Starts servers through our hub."""

    demo: Demo
    hub: Hub

    def once(self, options: Mapping[str, object], *, cold: bool) -> tuple[float, dict[str, float]]:
        """One start and stop: its seconds, and its phases.

        Args:
            options: The server's.
            cold: The person has only just logged in: no SSH connection is open, nothing but the
                certificate of the login is minted.
        """
        if cold:
            self.demo.cut_off(USER)
            log_in(f"http://127.0.0.1:{self.demo.port}/", USER, self.demo.info["users"][USER])
        posted_at = time.time()
        took = self.hub.start(USER, options)
        ready_at = posted_at + took
        server_id = self.hub.server(USER)["state"]["server_id"]
        phases = self._phases(server_id, posted_at, ready_at)
        self.hub.stop(USER)
        return took, phases

    def _phases(self, server_id: str, posted_at: float, ready_at: float) -> dict[str, float]:
        bridge = BridgeClient(self.demo.sockets / "bridge.sock")
        _, events, _ = asyncio.run(bridge.events(server_id, 0, 0))
        at: dict[str, float] = {}
        for event in events:
            name = str(event.phase)
            if name == "starting" and "starting" in at:
                name = "handed over"
            at.setdefault(name, event.at)
        steps = {"post": posted_at, "begun": at["connecting"]}
        if "submitted" in at:
            steps |= {"submit": at["submitted"], "queue": at["starting"]}
        else:
            steps["submit"] = at["starting"]
        steps |= {"attach": at["handed over"], "start": at["ready"], "ready": ready_at}
        names = list(steps)
        return {name: steps[name] - steps[before] for before, name in pairwise(names)}


def theirs_once(hub: Hub) -> float:
    """One start and stop through a rival's hub; its seconds."""
    took = hub.start(USER, {})
    hub.stop(USER)
    return took


def in_turn(
    demo: Demo,
    ours: Callable[[bool], tuple[float, dict[str, float]]],
    theirs: Callable[[], float],
    count: int,
    say: Callable[[str], None],
) -> tuple[Starts, Starts, Starts]:
    """Ours just logged in, theirs, and every second time ours with its connection open.

    Args:
        ours: One start of ours; its argument says whether the person has just logged in.
        theirs: One start of theirs.
        count: How many of each, after one of each to warm up.
    """
    cold, other, warm = Starts(), Starts(), Starts()
    for number in range(count + 1):
        demo.wait_until_quiet()
        mine = ours(True)
        demo.wait_until_quiet()
        rival = theirs()
        say(f"  {number or 'warm-up'}: ours {mine[0]:.2f} s, theirs {rival:.2f} s")
        if number == 0:
            continue
        cold.add(*mine)
        other.add(rival, {})
        if number % 2:
            demo.wait_until_quiet()
            warm.add(*ours(False))
    return cold, other, warm


def certificate_seconds(demo: Demo, count: int = 20) -> list[float]:
    """How long the signer takes to mint one."""
    public_key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()

    async def mint() -> list[float]:
        signer = SignerClient(demo.sockets / "signer.sock")
        password = Secret(demo.info["users"][USER])
        login = await signer.grant(USER, password, public_key, "127.0.0.1")
        found = []
        for _ in range(count):
            began = time.monotonic()
            await signer.certificate(login.grant, public_key, Profile.CONTROL)
            found.append(time.monotonic() - began)
        return found

    return asyncio.run(mint())


def ratios(mine: Sequence[float], other: Sequence[float]) -> list[float]:
    """Ours by theirs, pair by pair: below 1 is quicker."""
    return [one / two for one, two in zip(mine, other, strict=True)]
