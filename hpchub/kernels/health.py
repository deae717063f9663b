"""Whether a kernel would start here, and what to do where it would not.

What a look at the file system can tell costs nothing and is done before each launch (`at_a_glance`). The
rest is tried: the launcher does all that it would do, with a command in the kernel's place that looks for
ipykernel, IRkernel or IJulia.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from hpchub.errors import ConfigError, InvalidRequest
from hpchub.kernels.job_settings import read_settings
from hpchub.kernels.kernelspec import CONNECTION_FILE, SLURM, Kernelspec, Launch
from hpchub.kernels.refusal import refusal
from hpchub.schedulers.slurm_errors import hint_about

# A container's first start may unpack its image.
TRIAL_S = 120.0
_MISSING = 4
_WORDS = 600


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a kernel would start. `problem` is empty where it would; `hint` says how to mend it."""

    problem: str = ""
    hint: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing is known that stands in its way."""
        return not self.problem


GOOD = Health()


@dataclass(frozen=True, slots=True)
class _Language:
    """How to ask whether a language's kernel is there: exit code 4 is that it is not."""

    package: str
    words: tuple[str, ...]
    how: str


_LANGUAGES = {
    "python": _Language(
        "ipykernel",
        ("-c", "import importlib.util as u\nif not u.find_spec('ipykernel'): raise SystemExit(4)\n"
               "import ipykernel.kernelapp"),
        "{program} -m pip install ipykernel",
    ),
    "r": _Language(
        "IRkernel",
        ("--slave", "-e", "if (!requireNamespace('IRkernel', quietly = TRUE)) quit(status = 4)"),
        "{program} -e 'install.packages(\"IRkernel\")'",
    ),
    "julia": _Language(
        "IJulia",
        ("-e", "Base.find_package(\"IJulia\") === nothing && exit(4)"),
        "{program} -e 'import Pkg; Pkg.add(\"IJulia\")'",
    ),
}  # fmt: skip


def check(
    spec: Kernelspec,
    environ: Mapping[str, str] = os.environ,
    *,
    launcher: Path | None = None,
    limit_s: float = TRIAL_S,
) -> Health:
    """Tries it, on this machine and as this person; seconds for most, longer for an image.

    `launcher` is the one of a kernel that is not installed yet.
    """
    launcher = launcher or spec.folder / "launch"
    provisioner, config = spec.provisioner
    if provisioner == SLURM:
        try:
            refused = refusal(read_settings(config))
        except ConfigError as error:
            return Health(" ".join(error.problems) or error.message)
        except InvalidRequest as error:
            return Health(error.message)
        if refused:
            return Health(f"Slurm would refuse its job: {refused}", hint_about(refused))
    glance = at_a_glance(spec, environ, launcher)
    language = _LANGUAGES.get(spec.language)
    if not glance.is_good or language is None:
        return glance
    argv = _trial(spec, language, launcher)
    if not argv:
        return GOOD
    try:
        done = subprocess.run(
            argv, env=_with_own(spec, environ), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="backslashreplace", timeout=limit_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Health(f"it was not ready after {limit_s:g} s")
    except OSError as error:
        return Health(f"{argv[0]} cannot be run: {error.strerror}")
    if done.returncode == 0:
        return GOOD
    if done.returncode == _MISSING:
        return Health(f"{language.package} is missing{_where(spec.launch)}", _how(spec, language))
    return Health(last_words(done.stderr) or f"it ends with exit code {done.returncode}")


def at_a_glance(
    spec: Kernelspec, environ: Mapping[str, str] = os.environ, launcher: Path | None = None
) -> Health:
    """What the file system says: a prefix, an image or a program that is not there."""
    environ, launch = _with_own(spec, environ), spec.launch
    if launch is None:
        program = _filled(spec, spec.argv[0])
        there = shutil.which(program, path=environ.get("PATH"))
        return GOOD if there or program.startswith("{") else Health(f"there is no {program}")
    launcher = launcher or spec.folder / "launch"
    if not launcher.is_file():
        return Health(f"{launcher} is missing", "Install the kernel again, with --replace.")
    if launch.prefix and (why := _absence(Path(launch.prefix, "bin"))):
        return Health(f"the environment {launch.prefix} {why}", "Make it again, or remove the kernel.")
    if launch.prefix and _absence(Path(launch.prefix, "bin", launch.command[0])):
        return Health(f"the environment {launch.prefix} has no {launch.command[0]}")
    if launch.container:
        if not shutil.which(launch.container, path=environ.get("PATH")) and not launch.modules:
            return Health(f"there is no {launch.container} on this machine")
        if launch.image.startswith("/") and (why := _absence(Path(launch.image))):
            return Health(f"the image {launch.image} {why}")
    return GOOD


def _absence(path: Path) -> str:
    """Why something is not to be had, as the end of a sentence; empty where it is there."""
    try:
        path.stat()
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return ""


def last_words(text: str, lines: int = 3) -> str:
    """The end of what a program said, on one line; of our launcher, what it says itself."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line.removeprefix("hpchub: ") for line in said if line.startswith("hpchub: ")]
    chosen = (
        [*said[-lines - 1 : -1], *ours[-1:]] if ours and said[-1].startswith("hpchub: ") else said[-lines:]
    )
    printable = "".join(char if char.isprintable() else " " for char in "; ".join(chosen))
    return re.sub(r"\s+", " ", printable)[-_WORDS:]


def _trial(spec: Kernelspec, language: _Language, launcher: Path) -> tuple[str, ...]:
    """The command that looks for the kernel's package where the kernel would run; empty where none can."""
    launch = spec.launch
    if launch is not None:
        words = Launch(
            command=(launch.command[0], *language.words),
            modules=launch.modules,
            prefix=launch.prefix,
            container=launch.container,
            image=launch.image,
            binds=launch.binds,
        ).words()
        # There is no connection file yet, and so no folder to show to the container.
        plain = [word for word in words[1:] if word not in ("--connection-file", CONNECTION_FILE)]
        return (str(launcher), *plain)
    program = _filled(spec, spec.argv[0])
    looks_plain = re.fullmatch(r"(python[0-9.]*|R|julia)", Path(program).name)
    return (program, *language.words) if looks_plain else ()


def _filled(spec: Kernelspec, word: str) -> str:
    """As Jupyter fills the words in braces; a bare `python` is the one that Jupyter runs in."""
    if word in {"python", f"python{sys.version_info[0]}"}:
        return sys.executable
    return word.replace("{resource_dir}", str(spec.folder)).replace("{prefix}", sys.prefix)


def _with_own(spec: Kernelspec, environ: Mapping[str, str]) -> dict[str, str]:
    """With kernel.json's variables, which may name others, as Jupyter has it: `/opt/bin:${PATH}`."""
    own = {name: Template(value).safe_substitute(environ) for name, value in spec.environ.items()}
    return {**environ, **own}


def _where(launch: Launch | None) -> str:
    return f" in {launch.told()}" if launch else ""


def _how(spec: Kernelspec, language: _Language) -> str:
    launch = spec.launch
    if launch is None:
        return language.how.format(program=_filled(spec, spec.argv[0]))
    if launch.container:
        return f"Add {language.package} to the image."
    if launch.prefix:
        prefix = Path(launch.prefix)
        if language.package == "ipykernel" and (prefix / "conda-meta").is_dir():
            return f"conda install --prefix {prefix} ipykernel"
        return language.how.format(program=prefix / "bin" / launch.command[0])
    if launch.modules:
        load = f"module load {' '.join(launch.modules)}"
        return f"Load a module that has it as well; or, for yourself: {load} && " + language.how.format(
            program=launch.command[0]
        )
    return language.how.format(program=launch.command[0])
