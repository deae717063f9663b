"""What `sshd_facts.sh` tells of a login node's sshd, read. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpchub.errors import InvalidRequest, UnexpectedOutput

SCRIPT = Path(__file__).with_suffix(".sh")

_WORDS = frozenset(
    {"user", "address", "version", "setting", "fault", "ca", "principals_path", "principals_walk"}
    | {"principal", "krl_walk", "krl", "krl_age_s"}
)
_VERSION = re.compile(r"OpenSSH_([0-9]+)\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class Step:
    """A path, or a folder above it: the owner's id, its mode, and whether it is a folder."""

    path: str
    uid: int
    mode: int
    is_folder: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SshdFacts:
    """One sshd, asked for one user from one address. `version` is OpenSSH's, (0, 0) where it is not told.

    `settings` are `sshd -T`'s, each name with its values. `principals` are the lines of the user's file of
    principals; `krl` is `""` where sshd has no list, else `good`, `empty`, `text`, `broken` or `absent`.
    """

    user: str
    address: str
    version: tuple[int, int]
    settings: Mapping[str, tuple[str, ...]]
    authorities: tuple[str, ...]
    principals_path: str
    principals_walk: tuple[Step, ...]
    principals: tuple[str, ...]
    krl: str
    krl_walk: tuple[Step, ...]
    krl_age_s: int

    def setting(self, name: str) -> str:
        """The one value of a setting; empty where this OpenSSH does not have it."""
        return " ".join(self.settings.get(name, ()))

    def is_set(self, name: str) -> bool:
        """Whether a setting that may be `none` is something else."""
        return self.setting(name) not in {"", "none"}


def parse_facts(text: str) -> SshdFacts:
    """What the script has printed.

    Raises:
        InvalidRequest: It is something else, or sshd refused its own settings.
    """
    told: dict[str, list[str]] = defaultdict(list)
    for line in text.split("\n"):
        word, _, rest = line.rstrip("\r").partition(" ")
        if not word:
            continue
        if word not in _WORDS:
            raise InvalidRequest(
                f"That is not what sshd_facts.sh prints: {line[:60]!r}.",
                "`hpchub doctor --sshd-script` prints the script; run it on the login node as root.",
            )
        told[word].append(rest)
    if told["fault"]:
        raise InvalidRequest(
            f"sshd does not say its settings: {' '.join(told['fault'])[:300]}",
            "Run the script as root; `sshd -t` says what is wrong.",
        )
    if not told["setting"] or not told["user"] or not told["address"]:
        raise InvalidRequest("The settings of sshd are missing: the script did not reach its end.")
    version = _VERSION.search(_only(told, "version"))
    return SshdFacts(
        user=_only(told, "user"),
        address=_only(told, "address"),
        version=(int(version[1]), int(version[2])) if version else (0, 0),
        settings=_settings(told["setting"]),
        authorities=tuple(line for line in told["ca"] if line and not line.startswith("#")),
        principals_path=_only(told, "principals_path"),
        principals_walk=tuple(map(_step, told["principals_walk"])),
        principals=tuple(line.strip() for line in told["principal"] if _is_content(line)),
        krl=_only(told, "krl"),
        krl_walk=tuple(map(_step, told["krl_walk"])),
        krl_age_s=_number(_only(told, "krl_age_s") or "0", 10),
    )


def _only(told: Mapping[str, list[str]], word: str) -> str:
    return told[word][0] if told[word] else ""


def _is_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _settings(lines: list[str]) -> dict[str, tuple[str, ...]]:
    """By name: some of sshd's settings have a line for each value."""
    settings: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        name, _, value = line.partition(" ")
        settings[name.lower()].append(value.strip())
    return {name: tuple(values) for name, values in settings.items()}


def _step(line: str) -> Step:
    rest, _, path = line.partition("|")
    uid, mode, kind = (*rest.split(" ", 2), "", "")[:3]
    return Step(path=path, uid=_number(uid, 10), mode=_number(mode, 8), is_folder=kind == "directory")


def _number(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise UnexpectedOutput("sshd_facts.sh", text) from None
