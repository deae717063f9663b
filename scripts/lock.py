"""Recompile requirements/*.txt from pyproject.toml: exact pins, with the hashes of every file.

    python scripts/lock.py [--upgrade] [NAME ...]

Pins that still fit are kept; `--upgrade` takes the newest. The files name no index: which registry
to ask is the machine's own setting. Local folders of wheels are left out while compiling, because a
hash of a file that only one machine has would lock everybody else out.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==")
_LOCAL_SETTINGS = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_CONSTRAINT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One file: what goes in, which files' versions it must agree with, whose pins it leaves out."""

    name: str
    wanted: tuple[str, ...]
    agrees_with: tuple[str, ...] = ()
    on_top_of: str = ""

    @property
    def path(self) -> Path:
        """The file that is written."""
        return FOLDER / f"{self.name}.txt"


def targets() -> list[Target]:
    """Every file, those that others must agree with first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups: Mapping[str, list[str]] = project["dependency-groups"]
    base = project["project"]["dependencies"]
    extras = project["project"]["optional-dependencies"]
    hub = (*base, *extras["hub"])
    return [
        Target(name="build", wanted=tuple(groups["build"])),
        Target(name="hub", wanted=hub, agrees_with=("build",)),
        Target(
            name="postgresql",
            wanted=tuple(extras["postgresql"]),
            agrees_with=("build", "hub"),
            on_top_of="hub",
        ),
        Target(
            name="dev",
            wanted=(*hub, *extras["postgresql"], *extras["magics"], *extras["kernels"], *groups["dev"]),
            agrees_with=("build", "hub", "postgresql"),
        ),
        Target(name="audit", wanted=tuple(groups["audit"])),
        Target(name="cluster", wanted=tuple(groups["cluster"])),
        Target(
            name="cluster-data",
            wanted=tuple(groups["cluster-data"]),
            agrees_with=("cluster",),
            on_top_of="cluster",
        ),
        Target(name="bench", wanted=tuple(groups["bench"]), agrees_with=("cluster",)),
        Target(
            name="bench-magics",
            wanted=tuple(groups["bench-magics"]),
            agrees_with=("dev",),
            on_top_of="dev",
        ),
    ]


def blocks(text: str) -> dict[str, str]:
    """A requirements file cut into its pins, by package name; a pin keeps its hashes."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines(keepends=True):
        if line.startswith("#") or not line.strip():
            continue
        if pin := _PIN.match(line):
            name = pin.group(1).lower()
        if name:
            found[name] = found.get(name, "") + line
    return found


def compile_target(target: Target, *, upgrade: bool) -> None:
    """Write one file.

    Raises:
        subprocess.CalledProcessError: The requirements contradict each other; pip-compile said how.
    """
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "pins.txt")
        known = [FOLDER / f"{name}.txt" for name in (target.on_top_of, target.name) if name]
        output.write_text("".join(path.read_text() for path in known if path.exists()))
        wanted = Path(scratch, f"{target.name}.in")
        constraints = [f"-c {FOLDER / name}.txt" for name in target.agrees_with]
        wanted.write_text("\n".join((*target.wanted, *constraints)) + "\n")
        subprocess.run(
            (sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--no-header",
             "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options",
             "--no-annotate", "--allow-unsafe", "--strip-extras", "--resolver=backtracking",
             *(["--upgrade"] if upgrade else []), "--output-file", str(output), str(wanted)),
            check=True,
            cwd=scratch,
            env=_registry_only(os.environ, scratch),
        )  # fmt: skip
        pins = blocks(output.read_text())
    for name in blocks((FOLDER / f"{target.on_top_of}.txt").read_text()) if target.on_top_of else ():
        pins.pop(name, None)
    target.path.write_text(_header(target) + "".join(pins.values()))
    print(f"{target.path.relative_to(ROOT)}: {len(pins)} pins")


def _header(target: Target) -> str:
    addition = f", on top of {target.on_top_of}.txt" if target.on_top_of else ""
    return f"# Written by `make lock` from pyproject.toml{addition}. Python 3.11 or later, any platform.\n"


def _registry_only(environ: Mapping[str, str], scratch: str) -> dict[str, str]:
    """The environment without this machine's own wheels; an index chosen by PIP_INDEX_URL stays."""
    kept = {name: value for name, value in environ.items() if name not in _LOCAL_SETTINGS}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_TOOLS_CACHE_DIR": str(Path(scratch, "cache"))}


def main(arguments: Iterable[str] | None = None) -> int:
    """Compile all files, or those named."""
    everything = targets()
    names = [target.name for target in everything]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names)}; default: all")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    args = parser.parse_args(None if arguments is None else list(arguments))
    if unknown := set(args.names) - set(names):
        parser.error(f"no such file: {', '.join(sorted(unknown))}. There are {', '.join(names)}.")
    if sys.version_info[:2] != (3, 11):
        parser.error("compile with Python 3.11, the oldest that hpchub supports")
    FOLDER.mkdir(exist_ok=True)
    for target in everything:
        if not args.names or target.name in args.names:
            compile_target(target, upgrade=args.upgrade)
    return 0


if __name__ == "__main__":
    sys.exit(main())
