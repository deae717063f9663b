"""The way to a job's agent where no port of a node can be reached: one step of the job, for attach `srun`.

OpenSSH's client, with srun as its ProxyCommand, speaks to an sshd that lives as long as the step, and
carries every connection from a unix socket here to the agent's on the node, encrypted. Its keys lie in the
job's folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpchub.core.job_sshd import authorized_keys, sshd_config
from hpchub.errors import ConfigError, StartFailed
from hpchub.private_files import write_private_file
from hpchub.remote.kernel_agent import Streams

_log = logging.getLogger(__name__)

_SLURMS_VARIABLES = ("SLURM_", "SBATCH_", "SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_")

_PAUSE_S = 0.05
# Between two steps that did not begin: Slurm may be away.
_FIRST_REST_S, _LONGEST_REST_S = 1.0, 30.0
_END_S = 5.0
_KEYGEN_S = 30.0
_SAID_BYTES = 2000
_HOST_KEY, _CLIENT_KEY, _KNOWN_HOSTS = "host_key", "client_key", "known_hosts"
_ALIAS = "hpchub-job"

# A notebook server that is killed must not leave its step behind.
_TIED = (
    "import os, sys\nfrom hpchub.prctl import end_with_parent\n"
    "end_with_parent()\nos.execvp(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWay:
    """What a step needs: the job's folder, srun with the sshd's command, the agent's socket there."""

    folder: Path
    srun: tuple[str, ...]
    socket: str


class Step:
    """One srun step, begun when it is first needed and again whenever it was lost. For one event loop."""

    def __init__(self, way: StepWay, here: Path) -> None:
        """`here` is the unix socket that connections are carried from."""
        self._folder = way.folder
        self._argv = _ssh(way.srun, way.socket, here)
        self._here = here
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        # No pipe: an srun that will not end would hold it, and everybody who waits for its end.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as we are
        self._why = "there is no step yet"
        self._rest_s = _FIRST_REST_S
        self._not_before = 0.0

    async def connect(self, limit: int) -> Streams:
        """A connection to the agent, once the step has begun.

        Raises:
            OSError: It did not begin, or shall not be begun yet; the text is what ssh and srun said.
        """
        while True:
            process = await self._begun()
            try:
                streams = await asyncio.open_unix_connection(self._here, limit=limit)
            except OSError:
                if process.returncode is None:
                    await asyncio.sleep(_PAUSE_S)
                continue
            self._rest_s = _FIRST_REST_S
            return streams

    async def close(self) -> None:
        """Ends the step, if there is one."""
        process = self._process
        if process is None:
            self._errors.close()
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        _end_srun(process)
        self._errors.close()

    async def _begun(self) -> asyncio.subprocess.Process:
        async with self._lock:
            if self._process is not None:
                if self._process.returncode is None:
                    return self._process
                self._ended(self._process)
            if time.monotonic() < self._not_before:
                raise OSError(self._why)
            self._here.unlink(missing_ok=True)
            self._errors.truncate(0)
            self._errors.seek(0)
            self._process = process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
                # Names of files in it need no quotes; ssh has the shell run srun.
                cwd=self._folder, env={**slurm_environ(), "SHELL": "/bin/sh"}, start_new_session=True,
            )  # fmt: skip
            return process

    def _ended(self, process: asyncio.subprocess.Process) -> None:
        _end_srun(process)
        self._process = None
        self._errors.seek(0)
        self._why = _reason(self._errors.read(_SAID_BYTES)) or f"ssh ended with {process.returncode}"
        _log.info("kernel.step_ended error=%s", self._why)
        self._not_before = time.monotonic() + self._rest_s
        self._rest_s = min(2 * self._rest_s, _LONGEST_REST_S)


def _end_srun(process: asyncio.subprocess.Process) -> None:
    """What an ssh that was killed left behind, in the session that began with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def step_files(folder: Path) -> None:
    """Puts what both ends of a step need into a job's folder.

    Raises:
        ConfigError: The folder's name cannot stand in an sshd_config.
        StartFailed: There is no ssh-keygen.
    """
    try:
        config = sshd_config(str(folder))
    except ValueError as error:
        raise ConfigError(f"Attach srun cannot work from {folder}: {error}.") from error
    host, client = (_new_key(folder / name) for name in (_HOST_KEY, _CLIENT_KEY))
    for name, content in (
        ("sshd_config", config.encode()),
        ("authorized_keys", authorized_keys(client)),
        (_KNOWN_HOSTS, f"{_ALIAS} ".encode() + host),
    ):
        write_private_file(folder / name, content, replace=False)


def slurm_environ() -> dict[str, str]:
    """What Slurm's commands see here: none of the variables of a job that we may be in.

    Nor those that people set for commands of their own: SQUEUE_PARTITION, say, would hide a kernel's job.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(_SLURMS_VARIABLES)
    }


def _new_key(path: Path) -> bytes:
    """Makes a pair without a passphrase, which only the account can read; the public half."""
    argv = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hpchub", "-f", str(path))
    try:
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_KEYGEN_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise StartFailed(f"ssh-keygen, which attach srun needs here, failed: {error}.") from error
    return path.with_suffix(".pub").read_bytes()


def _ssh(srun: Sequence[str], theirs: str, here: Path) -> tuple[str, ...]:
    """What carries the connections. Nothing of the person's own ssh_config or agent has a part in it."""
    # A % would begin one of ssh's tokens. ssh itself puts an exec before it.
    proxy = shlex.join(srun).replace("%", "%%")
    settings = {
        "ProxyCommand": proxy, "LocalForward": f"{here} {theirs}", "ExitOnForwardFailure": "yes",
        "HostKeyAlias": _ALIAS, "StrictHostKeyChecking": "yes", "UserKnownHostsFile": _KNOWN_HOSTS,
        "GlobalKnownHostsFile": "/dev/null", "UpdateHostKeys": "no",
        "IdentityFile": _CLIENT_KEY, "IdentitiesOnly": "yes", "IdentityAgent": "none",
        "PreferredAuthentications": "publickey", "BatchMode": "yes", "StreamLocalBindMask": "0177",
        "ServerAliveInterval": "5", "ServerAliveCountMax": "4", "ConnectTimeout": "60",
        "ControlPath": "none", "Compression": "no", "LogLevel": "ERROR",
    }  # fmt: skip
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return (sys.executable, "-P", "-c", _TIED, "ssh", "-F", "none", "-N", "-T", *options, _ALIAS)


def _reason(said: bytes) -> str:
    """What was said, on one line: srun's where there are any, for ssh's then follow from them."""
    lines = [line.strip() for line in said.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
    slurms = [line for line in lines if line.startswith(("srun: ", "slurmstepd: "))]
    return "; ".join((slurms or lines)[-3:])
