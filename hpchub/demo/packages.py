"""The Debian packages that a demo needs: which are missing, and their installation."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hpchub.errors import SiteError

NEEDED = (
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "slurm-wlm-mysql-plugin",
    "munge",
    "mariadb-server",
    "openssh-server",
    "openssh-client",
    "environment-modules",
    "python3.11-venv",
    "iproute2",
    "util-linux",
)
FOR_TESTS = (
    "chromium",
    "chromium-driver",
    "curl",
    "docker-compose",
    "krb5-admin-server",
    "krb5-kdc",
    "postgresql",
    "r-cran-irkernel",
    "slapd",
    "slurm-wlm-jwt-plugin",
    "softhsm2",
    "systemd",
)

# invoke-rc.d(8) asks it before it starts a service; 101 means no.
_POLICY = Path("/usr/sbin/policy-rc.d")


def missing_packages(names: Sequence[str] = NEEDED) -> list[str]:
    """Those that are not installed. SiteError where the machine has no Debian packages."""
    if shutil.which("dpkg-query") is None:
        raise SiteError(
            "The demo needs Debian's packages, and this machine has no dpkg.",
            "Use Debian 12, or the cluster of docker-compose.slurm.yml.",
        )
    asked = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package}\t${db:Status-Status}\n", *names],
        capture_output=True, text=True, check=False,  # 1 means that some are unknown
    )  # fmt: skip
    rows = [line.split("\t") for line in asked.stdout.splitlines()]
    installed = {row[0] for row in rows if row[1:] == ["installed"]}
    return [name for name in names if name not in installed]


def require_packages() -> None:
    """SiteError that names what is missing."""
    if missing := missing_packages():
        raise SiteError(
            f"Debian packages are missing: {' '.join(missing)}.", "Install them with `hpchub demo install`."
        )


def install_packages(names: Sequence[str], say: Callable[[str], None]) -> None:
    """Install packages as root, having said which; none of their services starts."""
    say(f"Installing Debian packages: {' '.join(names)}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_services():
        for command in (
            ["apt-get", "update", "--quiet=2"],
            ["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *names],
        ):
            done = subprocess.run(
                command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
                raise SiteError(f"`{' '.join(command[:2])}` failed:\n{last}")
    say("Debian packages are in place; none of their services was started.")


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep packages from starting services, unless the machine has a policy of its own."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
