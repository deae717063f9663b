"""The people of the demo, on the cluster and at the hub: some well, some with a trouble each."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from hpchub.demo.layout import Layout

_FIRST_UID = 2001
_WORDS = (
    *("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "juniper"),
    *("kestrel", "larch", "maple", "nectar", "otter", "pebble", "quartz", "raven", "spruce", "tundra"),
    *("umber", "violet", "willow", "yarrow", "zephyr"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a password at the hub; with an account on the cluster unless `on_cluster` is off."""

    name: str
    trouble: str = ""
    on_cluster: bool = True
    locked: bool = False
    home_writable: bool = True
    bashrc: str = ""


PEOPLE = (
    Person(name="alice"),
    Person(name="bob"),
    Person(name="carol", trouble="no Slurm account"),
    Person(name="dora", trouble="home not writable", home_writable=False),
    Person(
        name="emil", trouble="login shell prints text", bashrc="echo 'Welcome, Emil.'\nprintf no-newline\n"
    ),
    Person(name="finn", trouble="login shell exits", bashrc="exit 1\n"),
    Person(name="gina", trouble="no account on the cluster", on_cluster=False),
    Person(name="Hans.Peter-2_x"),
    Person(name="a_name_with_32_characters_in_all"),
    Person(name="ivo", trouble="account locked on the cluster", locked=True),
    Person(name="jana", trouble="home full"),
    Person(name="site-admin", trouble="administers the hub; not on the cluster", on_cluster=False),
)
ADMIN = "site-admin"


def new_passwords() -> dict[str, str]:
    """A password for each person: four words, new for each run."""
    return {person.name: "-".join(secrets.choice(_WORDS) for _ in range(4)) for person in PEOPLE}


def lay_out_accounts(layout: Layout) -> None:
    """Write the cluster's passwd, group and shadow, and the homes.

    The machine's system accounts stay as they are, its people are not on the cluster.
    """
    passwd, group, shadow = _system_lines("passwd", 2), _system_lines("group", 2), []
    system = {line.split(":")[0] for line in passwd}
    shadow += [f"{name}:*:19000:0:99999:7:::" for name in sorted(system)]
    for uid, person in enumerate((p for p in PEOPLE if p.on_cluster), start=_FIRST_UID):
        passwd.append(f"{person.name}:x:{uid}:{uid}:{person.name}:/home/{person.name}:/bin/bash")
        group.append(f"{person.name}:x:{uid}:")
        # sshd refuses `!`, a locked account, even with a certificate; `*` only means no password.
        shadow.append(f"{person.name}:{'!' if person.locked else '*'}:19000:0:99999:7:::")
        _make_home(layout.home / person.name, person, uid)
    for name, lines, mode in (("passwd", passwd, 0o644), ("group", group, 0o644), ("shadow", shadow, 0o600)):
        path = layout.etc / name
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.chmod(mode)


def _make_home(home: Path, person: Person, uid: int) -> None:
    home.mkdir(mode=0o700)
    for name in (".profile", ".bashrc", ".bash_logout"):
        skeleton = Path("/etc/skel") / name
        if skeleton.exists():
            shutil.copy(skeleton, home / name)
    if person.bashrc:
        (home / ".bashrc").write_text(person.bashrc, encoding="utf-8")
    if not person.home_writable:
        home.chmod(0o755)
        return
    for path in (home, *home.iterdir()):
        os.chown(path, uid, uid)


def _system_lines(name: str, id_field: int) -> list[str]:
    """The machine's lines of passwd or group that no person of the demo would take."""
    lines = Path(f"/etc/{name}").read_text(encoding="utf-8").splitlines()
    ours = {person.name for person in PEOPLE}
    kept = []
    for line in lines:
        fields = line.split(":")
        if len(fields) > id_field and fields[0] not in ours:
            number = int(fields[id_field])
            if number < 1000 or number >= 60000:
                kept.append(line)
    return kept
