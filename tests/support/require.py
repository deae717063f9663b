"""Say what a test cannot do without. Missing: a visible skip, which CI turns into a failure."""

from __future__ import annotations

import os
import shutil

import pytest

# Slurm and OpenSSH daemons are in sbin, which an ordinary PATH leaves out.
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

CLUSTER_PROGRAMS = (
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "sbatch",
    "munged",
    "mariadbd",
    "sshd",
    "ip",
    "nsenter",
    "unshare",
)
BROWSER_PROGRAMS = ("chromium", "chromedriver")


def root() -> None:
    """Skip unless the test runs as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


def programs(*names: str) -> None:
    """Skip unless every program is installed."""
    missing = [name for name in names if shutil.which(name, path=_PATH) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}. `hpchub demo install --for-tests` installs them")


def cluster() -> None:
    """Skip unless the demo cluster can be booted here."""
    root()
    programs(*CLUSTER_PROGRAMS)


def browser() -> None:
    """Skip unless Debian's browser and its driver are installed."""
    programs(*BROWSER_PROGRAMS)
