"""A running server, and what would show that it was lost: its job, its kernel, the kernel's memory."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import requests
from websockets.exceptions import WebSocketException

from support.servers import Server, until
from support.slurm import jobs_of

_BACK_S = 45.0


@dataclass(frozen=True, slots=True)
class Witness:
    """What was so before the fault. `job_id` is empty for a server on a login node."""

    server: Server
    job_id: str
    kernel_id: str
    kernel_pid: str
    mark: str

    @classmethod
    def of(cls, server: Server) -> Witness:
        """Of a server that is ready: a kernel is started, which holds a mark in its memory."""
        kernel_id, mark = server.new_kernel(), secrets.token_hex(8)
        with server.connected(kernel_id) as kernel:
            pid = kernel.run(f"import os; mark = {mark!r}; print(os.getpid())")
        return cls(server, _job_of(server), kernel_id, pid, mark)

    def answers(self) -> bool:
        """Whether the same process still has the mark, asked through the proxy as a browser would.

        Raises:
            AssertionError: Something answers, and it is not the same.
        """
        try:
            with self.server.connected(self.kernel_id) as kernel:
                said = kernel.run("import os; print(os.getpid(), mark)")
        except (OSError, WebSocketException, requests.RequestException):
            return False
        assert said == f"{self.kernel_pid} {self.mark}", said
        return True

    def is_back(self, limit_s: float = _BACK_S) -> None:
        """Wait until it answers again, and see that the scheduler still has the same job.

        Raises:
            AssertionError: It was lost.
        """
        until(self.answers, f"{self.server.user}'s server {self.server.name!r} answers again", limit_s)
        assert _job_of(self.server) == self.job_id


def _job_of(server: Server) -> str:
    name = f"hpchub-{server.name}" if server.name else "hpchub"
    return jobs_of(server.demo, server.user).get(name, "")
