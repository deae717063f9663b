"""Certificates per second: `ssh-keygen -s`, asyncssh alone, and the whole signer through its socket.

All in one run, so that the ratios hold on a machine that is busy otherwise. The signer is the real process,
with its audit log and its ledger on the disk; no certificate is counted that the audit log does not have.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import argon2
import asyncssh

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import ProcessAway
from hpchub.signer.certificates import parse_public_key
from hpchub.signer.client import LARGEST_BATCH, SignerClient
from hpchub.signer.grants import GrantKey
from hpchub.signer.keys import init_keys, load_keys
from hpchub.signer.password_file import set_password
from hpchub.signer.policy import Policy, plan_grant

LOGINS_PER_S = 50
_PASSWORD = "bench"  # noqa: S105  of accounts that exist for seconds
_ACCOUNTS = 200
_KEYGEN = 200
_CERTIFICATES = 6000
_ALONE = 2000
_SECONDS = 10
_TOGETHER = 4 * LARGEST_BATCH
_TICKS = os.sysconf("SC_CLK_TCK")

_CONFIG = """\
socket = "signer.sock"
state_dir = "state"
audit_log = "audit.jsonl"
source_addresses = ["192.0.2.10"]
[proof]
kind = "password-file"
file = "passwords"
"""


@dataclass(slots=True)
class Speed:
    """How many in how many seconds, and in how many of processor time: the signer's alone, where it signs."""

    count: int
    wall_s: float
    processor_s: float

    @property
    def per_s(self) -> float:
        """By the clock."""
        return self.count / self.wall_s

    @property
    def per_core(self) -> float:
        """For each second of one core."""
        return self.count / self.processor_s


@dataclass(slots=True)
class Found:
    """What was measured, by name; and the seconds from login to certificate."""

    speeds: dict[str, Speed] = field(default_factory=dict)
    login_s: list[float] = field(default_factory=list)

    def latency_ms(self, share: float) -> float:
        """That share of the logins had their certificate within so many milliseconds."""
        return 1000 * sorted(self.login_s)[min(int(share * len(self.login_s)), len(self.login_s) - 1)]


def measure(say: Callable[[str], None]) -> Found:
    """All of it, in about half a minute."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="hpchub-bench-") as name:
        folder = Path(name)
        found.speeds["ssh-keygen -s, a process each"] = _ssh_keygen(folder)
        found.speeds["asyncssh alone"] = _asyncssh_alone()
        with _signer(folder) as process:
            asyncio.run(_through_the_socket(folder, process.pid, found))
    for what, speed in found.speeds.items():
        say(f"  {what}: {speed.per_s:.0f}/s, {speed.per_core:.0f} for a second of one core")
    say(f"  login to certificate: p50 {found.latency_ms(0.5):.1f} ms, p99 {found.latency_ms(0.99):.1f} ms")
    return found


def _ssh_keygen(folder: Path) -> Speed:
    for name in ("ca", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    before, began = os.times(), time.monotonic()
    for number in range(_KEYGEN):
        subprocess.run(
            ["ssh-keygen", "-q", "-s", str(folder / "ca"), "-I", f"hpchub:alice:{number}", "-n", "alice",
             "-V", "-1m:+10m", "-z", str(number), "-O", "clear", "-O", "source-address=192.0.2.10/32",
             str(folder / "user.pub")],
            check=True,
        )  # fmt: skip
    wall_s, after = time.monotonic() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Speed(_KEYGEN, wall_s, used)


def _asyncssh_alone() -> Speed:
    authority, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    public = user.convert_to_public()
    used, began = time.process_time(), time.monotonic()
    for number in range(_ALONE):
        authority.generate_user_certificate(
            public, f"hpchub:alice:{number}", serial=number, principals=["alice"],
            valid_after="-1m", valid_before="+10m", source_address=["192.0.2.10/32"],
            permit_x11_forwarding=False, permit_agent_forwarding=False, permit_port_forwarding=False,
            permit_pty=False, permit_user_rc=False,
        )  # fmt: skip
    return Speed(_ALONE, time.monotonic() - began, time.process_time() - used)


@contextmanager
def _signer(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real one, in a process of its own."""
    config = folder / "signer.toml"
    config.write_text(_CONFIG, encoding="ascii")
    init_keys(folder / "state")
    # Checking a password with argon2id takes 50 ms of a core, whoever signs: here it takes next to nothing.
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    for number in range(_ACCOUNTS):
        set_password(folder / "passwords", f"user{number:03}", Secret(_PASSWORD), cheap)
    argv = [sys.executable, "-m", "hpchub.cli", "signer", "--config", str(config), "serve"]
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            yield process
        finally:
            process.terminate()


async def _through_the_socket(folder: Path, pid: int, found: Found) -> None:
    signer = SignerClient(folder / "signer.sock")
    deadline = time.monotonic() + 20
    while True:
        try:
            await signer.ready()
            break
        except ProcessAway:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
    found.login_s = await _logins(signer)
    grants = _grants(load_keys(folder / "state").grant)
    for what, together in (("one at a time", 1), (f"{_TOGETHER} at once", _TOGETHER)):
        count = _ALONE if together == 1 else _CERTIFICATES
        await _mint(signer, grants, together, together)
        lines = _lines(folder)
        used, began = _processor_s(pid), time.monotonic()
        await _mint(signer, grants, count, together)
        speed = Speed(count, time.monotonic() - began, _processor_s(pid) - used)
        if _lines(folder) - lines != count:
            raise RuntimeError(f"{count} certificates, and {_lines(folder) - lines} audit records")
        found.speeds[f"the whole signer, asked for {what}"] = speed


def _grants(key: GrantKey) -> list[tuple[Secret, str]]:
    """Grants as logins earn them, each with its public key."""
    policy = Policy(certificate_lifetime_s=600, login_ceiling_s=3600, source_addresses=("192.0.2.10/32",))
    made = []
    for number in range(_ACCOUNTS):
        line = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
        grant = plan_grant(
            policy,
            account=f"user{number:03}",
            factor="password",
            fingerprint=parse_public_key(line).fingerprint,
            now=int(time.time()),
            grant_id=secrets.token_hex(16),
        )
        made.append((key.render(grant), line))
    return made


async def _mint(signer: SignerClient, grants: list[tuple[Secret, str]], count: int, together: int) -> None:
    """Certificates, `together` of them asked for in the same moment."""
    for start in range(0, count, together):
        chosen = (grants[number % len(grants)] for number in range(start, min(start + together, count)))
        await asyncio.gather(
            *(signer.certificate(grant, public_key, Profile.CONTROL) for grant, public_key in chosen)
        )


async def _logins(signer: SignerClient) -> list[float]:
    """Seconds from password to certificate, of logins that come evenly, whatever became of those before."""
    keys = [
        asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().strip()
        for _ in range(LOGINS_PER_S * _SECONDS)
    ]

    async def log_in(number: int) -> float:
        began = time.monotonic()
        login = await signer.grant(
            f"user{number % _ACCOUNTS:03}", Secret(_PASSWORD), keys[number], f"192.0.2.{number % _ACCOUNTS}"
        )
        await signer.certificate(login.grant, keys[number], Profile.CONTROL)
        return time.monotonic() - began

    began, tasks = time.monotonic(), []
    for number in range(len(keys)):
        await asyncio.sleep(max(0.0, began + number / LOGINS_PER_S - time.monotonic()))
        tasks.append(asyncio.create_task(log_in(number)))
    return list(await asyncio.gather(*tasks))


def _lines(folder: Path) -> int:
    with (folder / "audit.jsonl").open("rb") as file:
        return sum(1 for _ in file)


def _processor_s(pid: int) -> float:
    """Processor time that a process has used: proc(5), /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def times_as_quick(found: Found) -> float:
    """The signer's rate on one core where many ask at once, as a multiple of `ssh-keygen -s`."""
    keygen, *_, signer = found.speeds.values()
    return signer.per_core / keygen.per_core
