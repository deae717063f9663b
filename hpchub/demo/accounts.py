"""The people of the demo, on the cluster and at the hub: some well, some with a trouble each."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from hpchub.demo.layout import Layout
from hpchub.demo.software import copy_examples

FIRST_UID = 2001
_UIDS = range(10_000, 60_000, 50)
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

# Asks for the states of everybody's jobs, and does nothing else: its home is not its own to write.
STATUS_ACCOUNT = "slurmwatch"
_SERVICE = Person(name=STATUS_ACCOUNT, home_writable=False)


def new_passwords() -> dict[str, str]:
    """A password for each person: four words, new for each run."""
    return {person.name: "-".join(secrets.choice(_WORDS) for _ in range(4)) for person in PEOPLE}


@dataclass(frozen=True, slots=True)
class Account:
    """A person's account on the cluster."""

    person: Person
    uid: int

    @property
    def home(self) -> str:
        """Where the cluster's hosts see it."""
        return f"/home/{self.person.name}"

    @property
    def lines(self) -> dict[str, str]:
        """Its line in passwd, group and shadow."""
        name, uid = self.person.name, self.uid
        # sshd refuses `!`, a locked account, even with a certificate; `*` only means no password.
        mark = "!" if self.person.locked else "*"
        return {
            "passwd": f"{name}:x:{uid}:{uid}:{name}:{self.home}:/bin/bash",
            "group": f"{name}:x:{uid}:",
            "shadow": f"{name}:{mark}:19000:0:99999:7:::",
        }


def private_first_uid() -> int:
    """Where this process's own run of uids begins.

    The kernel counts a person's processes (RLIMIT_NPROC) over all namespaces: who uses up a limit in one
    demo would use it up in the demo beside it, were the uids the same.
    """
    return _UIDS[os.getpid() % len(_UIDS)]


def accounts(first_uid: int = FIRST_UID) -> list[Account]:
    """Everybody's who has one on the cluster, and the service account."""
    people = (person for person in (*PEOPLE, _SERVICE) if person.on_cluster)
    return [Account(person, uid) for uid, person in enumerate(people, start=first_uid)]


def lay_out_accounts(layout: Layout, first_uid: int = FIRST_UID) -> None:
    """Write the cluster's passwd, group and shadow, and the homes.

    The machine's system accounts stay as they are, its people are not on the cluster.
    """
    files = {"passwd": _system_lines("passwd", 2), "group": _system_lines("group", 2)}
    system = {line.split(":")[0] for line in files["passwd"]}
    files["shadow"] = [f"{name}:*:19000:0:99999:7:::" for name in sorted(system)]
    for account in accounts(first_uid):
        for name, line in account.lines.items():
            files[name].append(line)
        make_home(layout.home / account.person.name, account)
    for name, lines in files.items():
        path = layout.etc / name
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        path.chmod(0o600 if name == "shadow" else 0o644)


def make_home(home: Path, account: Account) -> None:
    """Make a person's home, with the trouble that the person has."""
    person = account.person
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
    copy_examples(home)
    for path in (home, *home.rglob("*")):
        os.chown(path, account.uid, account.uid)


def _system_lines(name: str, id_field: int) -> list[str]:
    """The machine's lines of passwd or group that no person of the demo would take."""
    lines = Path(f"/etc/{name}").read_text(encoding="utf-8").splitlines()
    ours = {person.name for person in (*PEOPLE, _SERVICE)}
    kept = []
    for line in lines:
        fields = line.split(":")
        if len(fields) > id_field and fields[0] not in ours:
            number = int(fields[id_field])
            if number < 1000 or number >= 60000:
                kept.append(line)
    return kept
