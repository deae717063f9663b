"""Packages of rivals, in folders of the cache, installed from the pins in requirements/ where missing."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from bench.private_demo import CHECKOUT

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==")


def install(name: str, without: str = "") -> Path:
    """The folder that holds the packages of requirements/NAME.txt, without those of another such file."""
    pins = _blocks(CHECKOUT / "requirements" / f"{name}.txt")
    for known in _blocks(CHECKOUT / "requirements" / f"{without}.txt") if without else ():
        pins.pop(known, None)
    text = "".join(pins.values())
    folder = CHECKOUT / ".cache" / "bench" / hashlib.sha256(text.encode()).hexdigest()[:12]
    if not folder.exists():
        fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
        fresh.mkdir(parents=True)
        wanted = fresh / "requirements.txt"
        wanted.write_text(text, encoding="utf-8")
        subprocess.run(
            (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--require-hashes", "--target", str(fresh / "packages"), "-r", str(wanted)),
            check=True,
        )  # fmt: skip
        fresh.rename(folder)
    return folder / "packages"


def _blocks(path: Path) -> dict[str, str]:
    """A requirements file's pins with their hashes, by package name."""
    found: dict[str, str] = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith("#") or not line.strip():
            continue
        if pin := _PIN.match(line):
            name = pin.group(1).lower()
        found[name] = found.get(name, "") + line
    return found
