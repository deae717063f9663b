"""A real PostgreSQL server for tests: in a folder of its own, on a unix socket only.

The server refuses to run as root, so root runs it as `nobody`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import psycopg
import pytest

from support.children import frozen
from support.servers import until

_PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
_NUMBERS = itertools.count(1)
# Nothing here must survive the machine.
_SETTINGS = ("listen_addresses=", "fsync=off", "unix_socket_permissions=0700", "max_connections=20")


class PostgresServer:
    """One server. `role` owns the databases that `new_database` makes, and is no superuser."""

    role = "hub"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once it answers."""
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_PROGRAMS[-1] / "postgres", "-D", self._folder / "data", "-k", self._folder, *settings],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **_unprivileged(),
            )  # fmt: skip
        until(self._answers, "PostgreSQL answers", 20)

    def stop(self) -> None:
        """End it at once, its sessions with it; what was committed is kept (pg_ctl's `immediate`)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
            self._process = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stopped while the block lasts."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connected and silent while the block lasts (SIGSTOP), its sessions with it."""
        assert self._process is not None
        with frozen(self._process.pid):
            yield

    @contextmanager
    def frozen_sessions(self) -> Iterator[None]:
        """The sessions of `role` silent while the block lasts; others are answered."""
        rows = self.ask("SELECT pid FROM pg_stat_activity WHERE usename = 'hub'")
        with _stopped([int(row[0]) for row in rows]):
            yield

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"bridge{next(_NUMBERS)}"
        self.ask(f"CREATE DATABASE {name} OWNER {self.role} STRATEGY file_copy")
        return f"postgresql://{self.role}@/{name}?host={self._folder}"

    def ask(self, statement: str, database: str = "postgres") -> list[Any]:
        """A statement as the superuser: its rows."""
        with psycopg.connect(
            host=str(self._folder), user="postgres", dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def end_sessions(self) -> None:
        """Cut every session of `role`, as a proxy or an operator does."""
        self.ask("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'hub'")

    def locks(self) -> int:
        """How many advisory locks are held."""
        return int(self.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted")[0][0])

    @contextmanager
    def holding(self, lock: tuple[int, int], url: str) -> Iterator[None]:
        """Another session has an advisory lock from the moment on in which nobody else has it."""
        database = url.partition("@/")[2].partition("?")[0]
        with psycopg.connect(host=str(self._folder), user="postgres", dbname=database) as connection:
            waiting = Thread(target=connection.execute, args=("SELECT pg_advisory_lock(%s, %s)", lock))
            waiting.start()
            yield
            waiting.join()

    def _answers(self) -> bool:
        try:
            return bool(self.ask("SELECT 1"))
        except psycopg.OperationalError:
            return False


@contextmanager
def a_server() -> Iterator[PostgresServer]:
    """A new server; skips where PostgreSQL is not installed."""
    if not _PROGRAMS:
        pytest.skip("not installed: postgresql. `hpchub demo install --for-tests` installs it")
    with TemporaryDirectory(prefix="hpchub-p-", dir="/tmp") as name:
        folder = Path(name)
        who = _unprivileged()
        if who:
            shutil.chown(folder, who["user"], who["group"])
        initdb = [str(_PROGRAMS[-1] / "initdb"), f"--pgdata={folder}/data", "--auth=trust", "--no-sync"]
        subprocess.run(
            [*initdb, "--username=postgres", "--encoding=UTF8", "--locale=C"],
            check=True, capture_output=True, cwd="/", **who,
        )  # fmt: skip
        server = PostgresServer(folder)
        server.start()
        try:
            server.ask(f"CREATE ROLE {server.role} LOGIN")
            yield server
        finally:
            server.stop()


@contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    stopped = []
    try:
        for pid in pids:
            with suppress(ProcessLookupError):  # the session that asked for them has ended
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
        yield
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _unprivileged() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": "nogroup", "extra_groups": []}
