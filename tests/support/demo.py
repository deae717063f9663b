"""The demo as tests see it: what its info.json says, and commands on its hosts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOOT_TIMEOUT_S = 960.0  # a first boot builds the cluster's environments
_LOG_LINES = 25


def run_hpchub(
    *arguments: str, stdin: str | None = None, timeout_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run the `hpchub` command of this Python; undecodable bytes survive as surrogates."""
    return subprocess.run(
        (sys.executable, "-m", "hpchub.cli", *arguments),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=timeout_s,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo. `info` is its info.json."""

    directory: Path
    info: Mapping[str, Any]

    @classmethod
    def load(cls, directory: Path) -> Demo:
        """The demo that runs in a folder."""
        return cls(directory, json.loads((directory / "info.json").read_text()))

    @property
    def url(self) -> str:
        """The hub's address, ending in a slash."""
        return str(self.info["url"]).rstrip("/") + "/"

    @property
    def users(self) -> Mapping[str, str]:
        """Names to passwords."""
        users: Mapping[str, str] = self.info["users"]
        return users

    @property
    def admin_headers(self) -> dict[str, str]:
        """What makes a request to the hub's REST API the administrator's."""
        return {"Authorization": f"token {self.info['admin_api_token']}"}

    def exec(
        self,
        host: str,
        argv: Sequence[str],
        *,
        user: str | None = None,
        stdin: str | None = None,
        timeout_s: float = 60.0,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host of the cluster, as root or as a user.

        Raises:
            AssertionError: `check` is set and the exit code is not zero; the message has both streams.
        """
        as_user = () if user is None else ("--user", user)
        place = ("--dir", str(self.directory), host, *as_user)
        result = run_hpchub("demo", "exec", *place, "--", *argv, stdin=stdin, timeout_s=timeout_s)
        if check and result.returncode != 0:
            raise AssertionError(
                f"{list(argv)} on {host} as {user or 'root'} ended with {result.returncode}:\n"
                f"{result.stdout}{result.stderr}"
            )
        return result

    def log_tails(self, lines: int = _LOG_LINES) -> str:
        """The last lines of every log, each under its name."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
            for path in log_files(self.info.get("logs", self.directory))
            if path.stat().st_size
        )


def log_files(logs: object) -> list[Path]:
    """The log files of info.json's `logs`: a folder, or files by name."""
    places = logs.values() if isinstance(logs, Mapping) else [logs]
    found: list[Path] = []
    for place in map(Path, map(str, places)):
        found += sorted(place.rglob("*.log")) if place.is_dir() else [place] if place.is_file() else []
    return found


@contextmanager
def private_demo(attach: str = "srun") -> Iterator[Demo]:
    """Boot a demo of our own, and take it down again whatever happens.

    Args:
        attach: The way into its jobs: `srun`, `ssh` or `tcp`.

    Raises:
        AssertionError: It does not boot, or leaves something behind; the message has what it printed.
    """
    # Lower case and short: unix sockets are named in URLs, which fold case, and end at 108 bytes.
    directory = Path(tempfile.mkdtemp(prefix="hpchub-"))
    # The demo's users must be able to pass through.
    directory.chmod(0o755)
    try:
        where = ("--dir", str(directory), "--attach", attach)
        up = run_hpchub("demo", "up", *where, timeout_s=_BOOT_TIMEOUT_S)
        if up.returncode != 0:
            tails = Demo(directory, {}).log_tails()
            raise AssertionError(f"the demo did not boot:\n{up.stdout}{up.stderr}\n{tails}")
        yield Demo.load(directory)
    finally:
        down = run_hpchub("demo", "down", "--dir", str(directory), timeout_s=_BOOT_TIMEOUT_S)
        if down.returncode != 0:
            raise AssertionError(f"the demo did not stop:\n{down.stdout}{down.stderr}")
        shutil.rmtree(directory)
