"""A kernel.json as we read and write it, and what its launcher is told.

The launcher's options in `argv` are the one place where a kernel's environment is written down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpchub.core.cluster import Container
from hpchub.core.shown import shown
from hpchub.errors import ConfigError, InvalidRequest

LAUNCHER = "{resource_dir}/launch"
CONNECTION_FILE = "{connection_file}"
SLURM = "hpchub-slurm"

# https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs; names are compared without case.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What kernels/launch is told: modules, then a prefix or an image, then the kernel's own command."""

    command: tuple[str, ...]
    modules: tuple[str, ...] = ()
    prefix: str = ""
    container: Container | None = None
    image: str = ""
    binds: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """The argv, from the launcher's name on."""
        options = [word for name in self.modules for word in ("--module", name)]
        if self.prefix:
            options += ["--prefix", self.prefix]
        if self.container:
            options += ["--container", self.container.value, "--image", self.image]
        options += [word for path in self.binds for word in ("--bind", path)]
        if self.container:
            options += ["--connection-file", CONNECTION_FILE]
        return (LAUNCHER, *options, "--", *self.command)

    def told(self) -> str:
        """In a few words, for a list."""
        parts = [f"module {name}" for name in self.modules]
        if self.prefix:
            parts.append(self.prefix)
        if self.container:
            parts.append(f"{self.container} {self.image}")
        return ", ".join(parts) or self.command[0]


def parse_launch(argv: Sequence[str]) -> Launch | None:
    """What the launcher is told; None where the kernel is started without it, or by hand-written options."""
    if not argv or argv[0] != LAUNCHER or "--" not in argv[:-1]:
        return None
    end = argv.index("--")
    several: dict[str, list[str]] = {"--module": [], "--bind": []}
    once = {"--prefix": "", "--container": "", "--image": "", "--connection-file": ""}
    options = iter(argv[1:end])
    for option in options:
        if option in several:
            several[option].append(next(options, ""))
        elif option in once:
            once[option] = next(options, "")
        else:
            return None
    if once["--container"] and once["--container"] not in set(Container):
        return None
    return Launch(
        command=tuple(argv[end + 1 :]),
        modules=tuple(several["--module"]),
        prefix=once["--prefix"],
        container=Container(once["--container"]) if once["--container"] else None,
        image=once["--image"],
        binds=tuple(several["--bind"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernelspec:
    """A kernel: its name, the folder of its kernel.json, and what stands in there."""

    name: str
    folder: Path
    body: Mapping[str, Any] = field(repr=False)

    @property
    def argv(self) -> tuple[str, ...]:
        """As written, with Jupyter's words in braces."""
        return tuple(self.body["argv"])

    @property
    def title(self) -> str:
        """What Jupyter shows."""
        return str(self.body.get("display_name") or self.name)

    @property
    def language(self) -> str:
        """In small letters."""
        return str(self.body.get("language", "")).lower()

    @property
    def environ(self) -> dict[str, str]:
        """The variables that kernel.json adds."""
        return dict(self.body.get("env") or {})

    @property
    def launch(self) -> Launch | None:
        """What our launcher is told; None for other people's kernels."""
        return parse_launch(self.argv)

    @property
    def provisioner(self) -> tuple[str, dict[str, Any]]:
        """The kernel provisioner that it names, and its settings; an empty name is Jupyter's own."""
        stanza = self.body.get("metadata", {}).get("kernel_provisioner", {})
        return str(stanza.get("provisioner_name", "")), dict(stanza.get("config") or {})

    def changed(self, **values: Any) -> Kernelspec:
        """The same with other values in kernel.json."""
        return replace(self, body={**self.body, **values})


def load_kernelspec(folder: Path) -> Kernelspec:
    """Reads kernel.json.

    Raises:
        ConfigError: It is not there, no JSON, or no kernelspec.
    """
    path = folder / "kernel.json"
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(body, ensure_ascii=False).encode()  # half a surrogate pair could never be shown or run
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    problem = _problem(body)
    if problem:
        raise ConfigError(f"{path} is no kernelspec: {problem}.")
    return Kernelspec(name=folder.name.lower(), folder=folder, body=body)


def _problem(body: Any) -> str:
    """What makes it no kernelspec; empty where it is one."""
    if not isinstance(body, dict):
        return "it is not an object"
    argv = body.get("argv")
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        return "argv must be a list of texts"
    if any("\0" in word for word in argv):
        return "argv holds a NUL character"
    environ = body.get("env") or {}
    if not isinstance(environ, dict) or not all(isinstance(value, str) for value in environ.values()):
        return "env must map names to texts"
    if any("\0" in name + value or not name or "=" in name for name, value in environ.items()):
        return "env holds what can be no variable"
    metadata = body.get("metadata", {})
    stanza = metadata.get("kernel_provisioner", {}) if isinstance(metadata, dict) else None
    if not isinstance(stanza, dict) or not isinstance(stanza.get("config") or {}, dict):
        return "metadata.kernel_provisioner must be an object"
    return ""


def render_kernelspec(body: Mapping[str, Any]) -> str:
    """kernel.json, argv on one line."""
    argv = body["argv"]
    text = json.dumps({**body, "argv": "ARGV"}, indent=2, ensure_ascii=False)
    return text.replace('"ARGV"', json.dumps(list(argv), ensure_ascii=False), 1) + "\n"


def checked_name(name: str) -> str:
    """A name that Jupyter takes for a kernelspec.

    Raises:
        InvalidRequest: It does not.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{shown(name)} cannot be a kernel's name.",
            "Use small letters, digits, '.', '_' and '-': --name NAME.",
        )
    return name
