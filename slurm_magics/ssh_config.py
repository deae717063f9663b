"""How to reach a host, as OpenSSH itself reads ~/.ssh/config: `ssh -G`, which knows Include and Match."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slurm_magics.errors import SlurmError

_LIMIT_S = 20.0
# What IdentityAgent calls the agent that the environment names.
FROM_ENVIRONMENT = "SSH_AUTH_SOCK"
_TARGET = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^:@\s]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII
)
_NEXT_PATH = re.compile(r" +(?=[/~%$])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a person writes: `[user@]host[:port]`, and options of ssh (such as -F and -p) before it."""

    host: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One host as the configuration describes it.

    `known_as` is its name in known_hosts; `agent` the agent's socket, FROM_ENVIRONMENT or `none`.
    """

    name: str
    host: str
    port: int
    user: str
    known_as: str
    known_hosts: tuple[Path, ...]
    keys: tuple[Path, ...]
    certificates: tuple[Path, ...] = ()
    only_these_keys: bool = False
    agent: str = ""
    jumps: tuple[Target, ...] = ()
    proxy_command: str = field(default="", repr=False)


def parse_target(text: str, options: Sequence[str] = ()) -> Target:
    """From `[user@]host[:port]`, as ProxyJump has it.

    Raises:
        SlurmError: It is none.
    """
    match = _TARGET.fullmatch(text.removeprefix("ssh://"))
    if not match or match["host"].startswith("-"):
        raise SlurmError(f"{text!r} is no host.", "Write it as ssh takes it: %slurm connect USER@HOST")
    user = ("-l", match["user"]) if match["user"] else ()
    port = ("-p", match["port"]) if match["port"] else ()
    return Target(host=match["host"].strip("[]"), options=(*options, *user, *port))


def resolve(target: Target) -> Route:
    """What OpenSSH would do for this host. A `Match exec` of the person's own configuration is run.

    Raises:
        SlurmError: There is no ssh, or the configuration is wrong.
    """
    argv = ("ssh", "-G", *target.options, "--", target.host)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise SlurmError(
            "There is no ssh on this machine's PATH.", "It is OpenSSH's client that reads ~/.ssh/config."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"ssh -G {target.host} has not ended within {_LIMIT_S:g} s.") from error
    if done.returncode:
        raise SlurmError(f"ssh refuses its configuration for {target.host}: {done.stderr.strip()}")
    return parse_settings(target, done.stdout)


def parse_settings(target: Target, text: str) -> Route:
    """From what `ssh -G` printed: a line for each setting, several for some."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, []).append(value)

    def one(name: str, otherwise: str = "") -> str:
        value = found.get(name, [otherwise])[0]
        return otherwise if value == "none" else value

    host, port, user = one("hostname", target.host), one("port", "22"), one("user")
    tokens = {
        "%": "%",
        "d": str(Path.home()),
        "h": host,
        "n": target.host,
        "p": port,
        "r": user,
        "u": getpass.getuser(),
    }

    def paths(words: Sequence[str]) -> tuple[Path, ...]:
        filled = (_path(word, tokens) for word in words if word != "none")
        return tuple(Path(os.path.expanduser(word)) for word in filled)  # noqa: PTH111  see Local.expanded

    jumps = one("proxyjump")
    config = _config(target.options)
    return Route(
        name=target.host,
        host=host,
        port=int(port),
        user=user,
        known_as=one("hostkeyalias", host),
        known_hosts=paths([*_files(one("userknownhostsfile")), *_files(one("globalknownhostsfile"))]),
        keys=paths(found.get("identityfile", [])),
        certificates=paths(found.get("certificatefile", [])),
        only_these_keys=one("identitiesonly") == "yes",
        agent=_agent(_path(found.get("identityagent", [FROM_ENVIRONMENT])[0], tokens)),
        jumps=tuple(parse_target(jump, config) for jump in jumps.split(",") if jump),
        proxy_command=_fill(one("proxycommand"), tokens),
    )


def _config(options: Sequence[str]) -> tuple[str, ...]:
    """The configuration file among the options: it counts for jump hosts as well."""
    for place, option in enumerate(options):
        if option == "-F":
            return ("-F", options[place + 1])
    return ()


def _files(text: str) -> list[str]:
    """The files of a list, which `ssh -G` prints without its quotes: a name may have blanks in it.

    The next name begins where an absolute path can. One that is relative is taken for a part of the name
    before it: then a file is not found, and a key not known, rather than another file believed.
    """
    return [name for name in _NEXT_PATH.split(text) if name]


def _fill(text: str, tokens: dict[str, str]) -> str:
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)


def _path(text: str, tokens: dict[str, str]) -> str:
    """With variables as `${HOME}`, too, which `ssh -G` leaves as they are."""
    return re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], match[0]), _fill(text, tokens))


def _agent(text: str) -> str:
    """The agent's socket, which `$NAME` takes from that variable: ssh_config(5), IdentityAgent."""
    if text == f"${FROM_ENVIRONMENT}":
        return FROM_ENVIRONMENT
    return os.environ.get(text[1:], "none") if text.startswith("$") else text
