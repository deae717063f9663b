"""A scheduler that answers as Slurm 22.05 did when tests/golden was captured, without any cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from golden.reader import golden

from hpchub.core.command import Command, CommandResult
from hpchub.core.server import ConnectionView
from hpchub.errors import HostUnreachable, HpchubError

_SEPARATOR = "\x1f"


def _rows(name: str) -> dict[str, str]:
    lines = [line for line in golden(name).stdout.split("\n") if _SEPARATOR in line]
    return {line.split(_SEPARATOR)[0]: line for line in lines}


class FakeSlurm:
    """Stands where the pool stands: `run` answers squeue, sacct, sacctmgr and scancel."""

    def __init__(self) -> None:
        self.queue = _rows("squeue_states")
        self.history = _rows("sacct_states")
        self.asked: list[tuple[str, str, Command]] = []
        self.failing: dict[str, HpchubError | Exception] = {}
        self.answers: dict[str, Callable[[Command], CommandResult]] = {
            "squeue": self._squeue,
            "sacct": self._sacct,
            "scancel": lambda _command: golden("scancel_ended"),
            "sacctmgr": self._sacctmgr,
        }
        self.times = _rows("account_times")
        self.pending = _rows("account_pending")
        self.took_s = 0.0
        self.open: list[ConnectionView] = []
        self.down: dict[str, str] = {}
        self.nodes = ["login1", "login2"]
        self.avoided: list[str] = []
        self.asked_on: list[str] = []

    def connections(self) -> list[ConnectionView]:
        return self.open

    async def tunnel(self, _user: str, _cluster: str, _node: str = "") -> None:
        raise HostUnreachable("no tunnel is played here")

    async def drop_user(self, user: str, *, keep_servers: bool = False) -> int:
        gone = [one for one in self.open if one.user == user and (one.use == "commands" or not keep_servers)]
        self.open = [one for one in self.open if one not in gone]
        return len(gone)

    def login_nodes(self, _cluster: str) -> int:
        return 1

    def unreachable(self, _cluster: str, _within_s: float) -> dict[str, str]:
        return self.down

    def count(self, name: str) -> int:
        return sum(command.name == name for _, _, command in self.asked)

    async def node_of(self, _user: str, _cluster: str) -> str:
        return next(node for node in self.nodes if node not in self.avoided or node == self.nodes[-1])

    def avoid(self, _user: str, _cluster: str, node: str) -> bool:
        self.avoided.append(node)
        return any(other not in self.avoided for other in self.nodes)

    async def __aenter__(self) -> FakeSlurm:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Nothing is open."""

    async def query(self, account: str, cluster: str, command: Command) -> CommandResult:
        """As the service account: the words on its standard input stand for the options."""
        what, _, items = command.stdin.decode().split()[:3]
        if what == "pending":
            self.asked.append((account, cluster, command))
            return _table(self.pending, list(self.pending))
        form = "--format=%S" if what == "times" else "--format=%T"
        argv = (command.name, f"--jobs={items}", form)
        return await self.run(account, cluster, replace(command, argv=argv))

    async def run(self, user: str, cluster: str, command: Command, *, node: str = "") -> CommandResult:
        self.asked.append((user, cluster, command))
        self.asked_on.append(node)
        await asyncio.sleep(self.took_s)
        if command.name in self.failing:
            raise self.failing[command.name]
        if command.name not in self.answers:
            raise HostUnreachable(f"{command.name} is not played here")
        return self.answers[command.name](command)

    def _squeue(self, command: Command) -> CommandResult:
        ids = _ids(command)
        if "%S" in command.argv[-1]:
            return _table(self.times, ids)
        if len(ids) == 1 and ids[0] not in self.queue:
            return golden("squeue_vanished")
        return _table(self.queue, ids)

    def _sacct(self, command: Command) -> CommandResult:
        return _table(self.history, _ids(command))

    def _sacctmgr(self, command: Command) -> CommandResult:
        (name,) = [command.argv[i + 1] for i, word in enumerate(command.argv) if word == "user"]
        return golden(f"sacctmgr_{name}" if name in {"alice", "bob", "carol"} else "sacctmgr_alice")


def _ids(command: Command) -> list[str]:
    (option,) = [word for word in command.argv if word.startswith("--jobs=")]
    return option.removeprefix("--jobs=").split(",")


def _table(rows: dict[str, str], ids: list[str]) -> CommandResult:
    return CommandResult(exit_code=0, stdout="".join(rows[one] + "\n" for one in ids if one in rows))
