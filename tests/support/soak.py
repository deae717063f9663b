"""Random faults while people work: `python -m support.soak --seed 7 --minutes 20` on a demo of its own.

The plan of faults and what each person does follow from the seed alone, so a run can be repeated. A
ledger knows which servers are running and which were stopped on purpose; at the end, when all is well
again, each one that runs must be the same process with the same memory.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import requests
from websockets.exceptions import WebSocketException

from support.demo import Demo, private_demo
from support.faults import FAULTS, RESTARTS, short_patience
from support.hub import HubSession
from support.servers import Server, until
from support.slurm import jobs_of
from support.witness import Witness

PEOPLE = ("alice", "bob")
_MOST_SERVERS = 2
_START_LIMIT_S = 90.0
_SETTLED_S = 60.0
# Under load these take longest to begin and end; a short run leaves them out.
_SLOW = ("slurmctld dead", "squeue answers after 60 s")


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault: when it begins, in seconds since the start, and how long it lasts."""

    at_s: float
    name: str
    lasts_s: float


def plan(seed: int, length_s: float, *, names: Sequence[str], longest_s: float = 15.0) -> list[Planned]:
    """Faults one after the other, in the second half two at a time. Two never touch the same thing."""
    rng = random.Random(seed)  # noqa: S311  to be repeated
    planned: list[Planned] = []
    now = rng.uniform(1, 3)
    deck: list[str] = []
    while now < length_s - longest_s / 3:
        if not deck:  # each once before one comes again
            deck = rng.sample(names, len(names))
        name = deck.pop()
        lasts_s = round(rng.uniform(longest_s / 3, longest_s), 1)
        planned.append(Planned(round(now, 1), name, lasts_s))
        others = [other for other in names if other.split()[0] != name.split()[0]]
        if now > length_s / 2 and others:
            planned.append(Planned(round(now + lasts_s / 3, 1), rng.choice(others), lasts_s))
            lasts_s *= 4 / 3
        now += lasts_s + rng.uniform(2, 6)
    return planned


@dataclass
class Ledger:
    """What happened, and what must still be there. Shared by everybody's threads."""

    running: dict[tuple[str, str], Witness] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        """One more of these."""
        with self.lock:
            self.counts[what] += 1

    def is_lost(self, server: Server, why: str, job_id: str = "") -> None:
        """A server that should run does not, or is another."""
        with self.lock:
            self.lost.append(f"{server.user}/{server.name} (job {job_id or '-'}): {why}")
            self.running.pop((server.user, server.name), None)


class Person(threading.Thread):
    """Starts servers, runs cells, stops servers, until told to end."""

    def __init__(self, demo: Demo, name: str, seed: int, ledger: Ledger, ended: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.failure: BaseException | None = None
        self._demo = demo
        self._rng = random.Random(f"{seed} {name}")  # noqa: S311  to be repeated
        self._ledger = ledger
        self._ended = ended
        self._number = 0
        self._to_stop: list[Server] = []

    def run(self) -> None:
        """One thing after the other. What fails here is a fault of the soak's own, and told at the end."""
        try:
            with HubSession(self._demo.url) as session:
                until(
                    lambda: _logs_in(session, self.name, self._demo.users[self.name]), f"{self.name} logs in"
                )
                while not self._ended.wait(self._rng.uniform(0.5, 2)):
                    self._act(session)
        except BaseException as error:
            self.failure = error

    def _act(self, session: HubSession) -> None:
        self._to_stop = [server for server in self._to_stop if not _is_stopped(server)]
        mine = [witness for (user, _), witness in list(self._ledger.running.items()) if user == self.name]
        action = self._rng.choice(["start", "cell", "cell", "cell", "stop"])
        if (action == "start" and len(mine) < _MOST_SERVERS) or not mine:
            self._number += 1
            server = Server(self._demo, session, self.name, f"soak{self._number}")
            self._begin(server, self._rng.choice(["login", "compute", "compute"]))
        elif action == "stop":
            self._end(self._rng.choice(mine))
        else:
            self._cell(self._rng.choice(mine))

    def _begin(self, server: Server, placement: str) -> None:
        try:
            answer = server.ask(placement=placement)
            deadline = time.monotonic() + _START_LIMIT_S
            while (model := server.model()).get("pending") and time.monotonic() < deadline:
                time.sleep(0.3)
            if not model.get("ready"):
                self._ledger.count("starts refused" if answer.status_code >= 400 else "starts given up")
                self._to_stop.append(server)
                return
        except requests.RequestException:
            self._ledger.count("starts that nobody answered")
            self._to_stop.append(server)
            return
        try:
            witness = _witness(server)
        except AssertionError as error:
            self._ledger.is_lost(server, f"ready on {placement}, but {error}")
            return
        self._ledger.running[server.user, server.name] = witness
        self._ledger.count("servers started")

    def _cell(self, witness: Witness) -> None:
        try:
            answered = witness.answers()
            if not answered and not witness.server.model():
                self._ledger.is_lost(witness.server, "the hub does not list it any more", witness.job_id)
        except AssertionError as error:
            self._ledger.is_lost(witness.server, str(error), witness.job_id)
        except requests.RequestException:
            answered = False
        self._ledger.count("cells run" if answered else "cells that had to wait")

    def _end(self, witness: Witness) -> None:
        server = witness.server
        del self._ledger.running[server.user, server.name]
        if _is_stopped(server):
            self._ledger.count("servers stopped")
        else:
            self._ledger.count("stops asked for again")
            self._to_stop.append(server)

    def leave(self) -> None:
        """Stop what has been started and given up; all must be well again."""
        until(
            lambda: all(map(_is_stopped, self._to_stop)), f"{self.name}'s servers can be stopped", _SETTLED_S
        )


def soak(demo: Demo, seed: int, length_s: float, *, names: Sequence[str], longest_s: float = 15.0) -> Ledger:
    """Run the plan of a seed on a demo. What was lost is in the ledger."""
    ledger, ended = Ledger(), threading.Event()
    with short_patience(demo):
        people = [Person(demo, name, seed, ledger, ended) for name in PEOPLE]
        for person in people:
            person.start()
        until(lambda: len(ledger.running) >= len(PEOPLE) or any(p.failure for p in people), "all work", 60)
        planned = plan(seed, length_s, names=names, longest_s=longest_s)
        _inject(demo, planned, lambda: any(person.failure for person in people))
        ended.set()
        for person in people:
            person.join(2 * _START_LIMIT_S)
            if person.failure is not None:
                raise person.failure
            person.leave()
        _settle(demo, ledger)
    return ledger


def _inject(demo: Demo, planned: Sequence[Planned], given_up: Callable[[], bool]) -> None:
    """Begin and end each fault at its time, unless it is all over. Those that overlap end in any order."""
    began = time.monotonic()
    marks = sorted(
        [(one.at_s, True, one) for one in planned]
        + [(one.at_s + one.lasts_s, False, one) for one in planned],
        key=lambda mark: (mark[0], mark[1]),
    )
    going: dict[Planned, ExitStack] = {}
    with ExitStack() as whatever_happens:
        for at_s, begins, one in marks:
            time.sleep(max(0.0, began + at_s - time.monotonic()))
            if given_up():
                return
            if begins:
                stack = going[one] = ExitStack()
                whatever_happens.push(stack)
                stack.enter_context(_told(one, began))
                stack.enter_context({**FAULTS, **RESTARTS}[one.name](demo))
            else:
                going.pop(one).close()


@contextmanager
def _told(one: Planned, began: float) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"  {start - began:7.1f} s  {one.name:32} {time.monotonic() - start:5.1f} s", flush=True)


def _settle(demo: Demo, ledger: Ledger) -> None:
    """All is well again: each server must answer as before. Then stop them, and see what is left."""
    for witness in list(ledger.running.values()):
        try:
            witness.is_back(_SETTLED_S)
        except AssertionError as error:
            ledger.is_lost(witness.server, str(error), witness.job_id)
    for witness in list(ledger.running.values()):
        witness.server.stop()
    _cancel_revived(demo, ledger)
    for name in PEOPLE:
        until(lambda: not jobs_of(demo, name), f"no job of {name}'s is left", _SETTLED_S)  # noqa: B023


def _cancel_revived(demo: Demo, ledger: Ledger) -> None:
    """Jobs whose cancellation slurmctld took, and forgot when it was killed within SLURM_SAVES_WITHIN_S.

    They are running again for it alone: nothing is left of them on their nodes.
    """
    log = (Path(demo.info["logs"]) / "slurmctld-ctl.log").read_text()
    running = demo.exec("ctl", ["squeue", "--noheader", "--states=RUNNING", "--format=%i"], check=True).stdout
    for job_id in running.split():
        _, cancelled, after = log.partition(f"REQUEST_KILL_JOB JobId={job_id} ")
        if cancelled and f"Recovered JobId={job_id} " in after:
            demo.exec("ctl", ["scancel", job_id], check=True)
            ledger.count("jobs Slurm brought back")


def _witness(server: Server) -> Witness:
    """A kernel in it; asked for again while a fault is in the way.

    Raises:
        AssertionError: None could be had; says why not, the last few times.
    """
    failures: list[str] = []
    began = time.monotonic()
    while time.monotonic() < began + _START_LIMIT_S:
        try:
            return Witness.of(server)
        except (OSError, requests.RequestException, WebSocketException, AssertionError) as error:
            failures.append(f"{time.monotonic() - began:.0f} s: {error!r}"[:300])
            time.sleep(1)
    raise AssertionError("no kernel starts: " + " | ".join(failures[-5:]))


def _is_stopped(server: Server) -> bool:
    """Ask the hub to stop it; whether it will, or has done so."""
    try:
        answer = server.session.delete(server.api)
    except requests.RequestException:
        return False
    # A proxy that was just started answers 404 to everything, with a page.
    is_from_the_hub = answer.headers.get("Content-Type", "").startswith("application/json")
    return answer.status_code in {202, 204} or (answer.status_code == 404 and is_from_the_hub)


def _logs_in(session: HubSession, name: str, password: str) -> bool:
    try:
        session.login(name, password)
    except (AssertionError, requests.RequestException):
        return False
    return True


def report(ledger: Ledger) -> str:
    """The table at the end."""
    rows = [f"  {what:28} {number:5}" for what, number in sorted(ledger.counts.items())]
    return "\n".join([*rows, *(f"  LOST {one}" for one in ledger.lost), f"lost: {len(ledger.lost)}"])


def quick_names() -> list[str]:
    """The faults for a short run."""
    return [name for name in FAULTS if name not in _SLOW]


def main() -> int:
    """0 where nothing was lost."""
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--restarts", action="store_true", help="kill the hub's own processes, too")
    parser.add_argument(
        "--dir", type=Path, help="a demo that runs already, and is there to look at afterwards"
    )
    options = parser.parse_args()
    names = [*FAULTS, *(RESTARTS if options.restarts else ())]
    print(f"seed {options.seed}, {options.minutes:g} minutes; repeat with SEED={options.seed}", flush=True)
    with nullcontext(Demo.load(options.dir)) if options.dir else private_demo() as demo:
        ledger = soak(demo, options.seed, 60 * options.minutes, names=names)
    print(report(ledger))
    return 1 if ledger.lost else 0


if __name__ == "__main__":
    sys.exit(main())
