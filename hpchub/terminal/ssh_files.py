"""What ssh reads of us: files of our own under `~/.ssh/hpchub`, and one line in `~/.ssh/config`.

What comes from the hub is checked before it is written: no value of it can begin a line of its own.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpchub.core.cluster import LoginNode
from hpchub.core.slugs import is_safe_account_name, is_scheduler_name
from hpchub.errors import ConfigError, UnexpectedOutput
from hpchub.private_files import make_private_folder, write_private_file

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,254}", re.ASCII)
_JUMP = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?([A-Za-z0-9][A-Za-z0-9.-]*)(?::[0-9]{1,5})?", re.ASCII)
_KNOWN_HOST = re.compile(r"[ -~]{1,16000}", re.ASCII)
_FOLDER = re.compile(r'[^"\n%*?\[\]\\$]+')

_ABOVE = "# hpchub's hosts: written by `hpchub login`, removed by `hpchub logout`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What `logout` and `token` have to know of a login. Nothing in it is secret."""

    url: str
    username: str
    public_key: str
    certificate: str
    valid_before: int
    key_file: str = ""


class SshFiles:
    """The files of one hub. Each method leaves all lines alone that are not ours."""

    def __init__(self, ssh_folder: Path, name: str) -> None:
        """ConfigError where the folder's name could not stand in ssh's settings."""
        self._ssh = ssh_folder.expanduser().absolute()
        if not _FOLDER.fullmatch(str(self._ssh)):
            raise ConfigError(f"{self._ssh} cannot be named in ssh's settings.")
        self._folder = self._ssh / "hpchub"
        self._stem = name
        self._include = f'Include "{self._folder}/*.conf"'

    @staticmethod
    def hubs(ssh_folder: Path) -> list[str]:
        """The names of all hubs that have files there."""
        folder = ssh_folder.expanduser().absolute() / "hpchub"
        return sorted(path.stem for path in folder.glob("*.json"))

    def kept(self) -> Kept | None:
        """The login that wrote the files; None where none did."""
        try:
            return Kept(**json.loads(self._path(".json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{self._path('.json')} cannot be read.", "Remove it.") from error

    def write(self, kept: Kept, clusters: Sequence[Mapping[str, Any]]) -> list[str]:
        """Write all, in the place of what the login before wrote; the names under which ssh finds hosts.

        Raises:
            UnexpectedOutput: The hub's answer holds what may not stand in ssh's settings.
            ConfigError: A file cannot be written.
        """
        blocks, aliases, known = self._render(kept, clusters)
        try:
            self._ssh.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._ssh} cannot be made: {error.strerror}.") from error
        make_private_folder(self._folder)
        for ending, content in {
            "_known_hosts": "".join(f"{line}\n" for line in known),
            "-cert.pub": f"{kept.certificate}\n",
            ".pub": f"{kept.public_key}\n",
            ".json": json.dumps(asdict(kept)),
            ".conf": blocks,
        }.items():
            write_private_file(self._path(ending), content.encode(), replace=True)
        self._write_include()
        return aliases

    def remove(self) -> None:
        """Remove the files; the line in `~/.ssh/config` too, where they were the last."""
        for ending in ("_known_hosts", "-cert.pub", ".pub", ".json", ".conf"):
            self._path(ending).unlink(missing_ok=True)
        if not any(self._folder.glob("*.conf")):
            self._rewrite_config(lambda lines: [one for one in lines if one not in {_ABOVE, self._include}])

    def _path(self, ending: str) -> Path:
        return self._folder / f"{self._stem}{ending}"

    def _write_include(self) -> None:
        """At the top, because after a `Host` or `Match` it would count for that one alone."""

        def with_it(lines: list[str]) -> list[str]:
            return lines if self._include in lines else [_ABOVE, self._include, *lines]

        self._rewrite_config(with_it)

    def _rewrite_config(self, change: Any) -> None:
        config = self._ssh / "config"
        try:
            target = config.resolve()  # people link it into a folder of theirs
            old = target.read_text(encoding="utf-8", errors="surrogateescape") if target.exists() else ""
            mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o600
            lines = old.split("\n")
            new = change(lines)
            if new != lines:
                content = "\n".join(new).encode("utf-8", "surrogateescape")
                write_private_file(target, content, replace=True, mode=mode)
        except OSError as error:
            raise ConfigError(f"{config} cannot be changed: {error.strerror}.") from error

    def _render(self, kept: Kept, clusters: Sequence[Mapping[str, Any]]) -> tuple[str, list[str], list[str]]:
        if not is_safe_account_name(kept.username):
            raise _odd("a user name")
        if kept.key_file and not _FOLDER.fullmatch(kept.key_file):
            raise ConfigError(f"{kept.key_file} cannot be named in ssh's settings.")
        known: list[str] = []
        aliases: list[str] = []
        blocks = [f"# {kept.url}: each `hpchub login` writes this file anew."]
        jumps: set[str] = set()
        for cluster in map(_read, clusters):
            known += cluster.known_hosts
            if cluster.jump:
                jumps.add(_jump_host(cluster.jump))
            for number, node in enumerate(cluster.nodes):
                short = f"{cluster.name}-{node.name}"
                names = [cluster.name, short, node.address] if number == 0 else [short, node.address]
                aliases.append(names[0])
                jumps.discard(node.address)
                blocks.append(self._block(kept, names, node.address, node.port, cluster.jump))
        blocks += [self._block(kept, [host], host, 0, "") for host in sorted(jumps)]
        return "\n\n".join(blocks) + "\n", aliases, known

    def _block(self, kept: Kept, names: Sequence[str], address: str, port: int, jump: str) -> str:
        """One host. With `IdentitiesOnly`, an agent full of keys does not use up sshd's patience."""
        lines = [
            f"HostName {address}",
            *((f"Port {port}",) if port else ()),
            f"User {kept.username}",
            *((f"ProxyJump {jump}",) if jump and _jump_host(jump) != address else ()),
            f'UserKnownHostsFile "{self._path("_known_hosts")}"',
            "StrictHostKeyChecking yes",
            f'CertificateFile "{self._path("-cert.pub")}"',
            # A public key: ssh asks the agent for the other half.
            f'IdentityFile "{kept.key_file or self._path(".pub")}"',
            "IdentitiesOnly yes",
            "ForwardAgent no",
            "ForwardX11 no",
        ]
        return "\n    ".join([f"Host {' '.join(dict.fromkeys(names))}", *lines])


@dataclass(frozen=True, slots=True)
class _Cluster:
    """What the hub tells of a cluster, checked."""

    name: str
    jump: str
    known_hosts: list[str]
    nodes: list[LoginNode]


def _read(told: Mapping[str, Any]) -> _Cluster:
    try:
        name, jump = told["name"], told["proxy_jump"]
        if not isinstance(name, str) or not is_scheduler_name(name):
            raise _odd("the name of a cluster")
        return _Cluster(
            name=name,
            jump=jump and _checked(_JUMP, jump, "a jump host"),
            known_hosts=[_checked(_KNOWN_HOST, line, "a host key") for line in told["known_hosts"]],
            nodes=[
                LoginNode(
                    name=_checked(_HOST, node["name"], "a name"),
                    address=_checked(_HOST, node["address"], "an address"),
                    port=_port(node["port"]),
                )
                for node in told["login_nodes"]
            ],
        )
    except (KeyError, TypeError) as error:
        raise _odd("a cluster") from error


def _port(value: object) -> int:
    if not isinstance(value, int) or not 0 < value < 65536:
        raise _odd("a port")
    return value


def _checked(pattern: re.Pattern[str], value: object, what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _odd(what)
    return value


def _jump_host(jump: str) -> str:
    match = _JUMP.fullmatch(jump)
    if not match:
        raise _odd("a jump host")
    return match[1]


def _odd(what: str) -> UnexpectedOutput:
    return UnexpectedOutput("the hub", f"{what} that may not stand in ssh's settings")


def default_ssh_folder() -> Path:
    """Where ssh looks."""
    return Path(os.environ.get("HOME", "~")).expanduser() / ".ssh"
