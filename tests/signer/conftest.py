"""A signer of each test's own, with cheap hashes, and keys to bring to it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import argon2
import asyncssh
import pytest

from hpchub.core.secret import Secret
from hpchub.private_files import make_private_folder
from hpchub.signer.client import SignerClient
from hpchub.signer.keys import init_keys
from hpchub.signer.password_file import set_password
from hpchub.signer.policy import Policy
from hpchub.signer.server import running
from hpchub.signer.settings import ProofKind, ProofSettings, SignerSettings
from hpchub.signer.state import State
from support import require
from support.directory import Directory, a_directory
from support.folders import let_others_pass, tmp_path
from support.kdc import Kdc, a_kdc

__all__ = ["tmp_path"]

PASSWORDS = {
    "alice": "canary-alice-77",
    "bob": "canary-bob-78",
    "Dr.Eve-2_long.name.of-32.letters": "canary-79",
}
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@pytest.fixture(autouse=True)
def no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read this machine's bundle of authorities takes 20 ms, for each of a test's TLS contexts."""
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)


@dataclass
class Clock:
    """The time, as a test sets it, in Unix seconds."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class UserKey:
    """A key pair as the bridge makes it."""

    private: asyncssh.SSHKey
    public: str


def make_user_key() -> UserKey:
    private = asyncssh.generate_private_key("ssh-ed25519")
    return UserKey(private, private.export_public_key("openssh").decode())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A private folder for a signer's state."""
    made = tmp_path / "state"
    make_private_folder(made)
    return made


@pytest.fixture
def state(folder: Path) -> Iterator[State]:
    opened = State(folder)
    yield opened
    opened.close()


@pytest.fixture
def user_key() -> UserKey:
    return make_user_key()


@pytest.fixture
def other_key() -> UserKey:
    return make_user_key()


@pytest.fixture
def passwords() -> dict[str, str]:
    """Every account's password."""
    return PASSWORDS


@pytest.fixture
def settings(tmp_path: Path) -> SignerSettings:
    """A signer that is set up but does not run. carol is locked."""
    tmp_path.chmod(0o700)
    file = tmp_path / "passwords"
    for name, password in PASSWORDS.items():
        set_password(file, name, Secret(password), CHEAP)
    set_password(file, "carol", Secret("canary-carol-80"), CHEAP)
    file.write_text(file.read_text().replace("carol:", "carol:!"))
    made = SignerSettings(
        socket=tmp_path / "run" / "signer.sock",
        state_dir=tmp_path / "state",
        audit_log=tmp_path / "audit.jsonl",
        policy=Policy(
            certificate_lifetime_s=600,
            login_ceiling_s=43200,
            source_addresses=("127.0.0.1/32", "::1/128"),
            query_accounts=("slurmwatch",),
        ),
        proof=ProofSettings(kind=ProofKind.PASSWORD_FILE, file=file),
        krl_file=tmp_path / "revoked_keys",
    )
    init_keys(made.state_dir)
    return made


@pytest.fixture
async def signer(settings: SignerSettings) -> AsyncIterator[SignerClient]:
    """A running signer's client."""
    async with running(settings):
        yield SignerClient(settings.socket)


ACCOUNT_IDS = {"alice": 20001, "bob": 20002, "carol": 20003, "dora": 20004, "slurmwatch": 20005}


@pytest.fixture
def namespace(tmp_path: Path) -> tuple[str, ...]:
    """The argv before a command that is to see accounts of its own and a PAM service `hpchub-test`.

    alice and bob are ordinary, carol is locked, dora has expired. Their passwords are `pam-NAME`.
    """
    require.root()
    require.programs("unshare", "openssl", "sshd")
    etc = tmp_path / "etc"
    (etc / "pam.d").mkdir(parents=True)
    homes = tmp_path / "homes"
    homes.mkdir()
    let_others_pass(tmp_path)  # accounts must reach their homes
    passwd = ["root:x:0:0::/root:/bin/sh", "sshd:x:20100:65534::/run/sshd:/usr/sbin/nologin"]
    shadow = ["root:*:19000:0:99999:7:::", "sshd:!:19000:0:99999:7:::"]
    passwords = "".join(f"pam-{name}\n" for name in ACCOUNT_IDS)
    argv = ["openssl", "passwd", "-6", "-stdin"]
    done = subprocess.run(argv, input=passwords, capture_output=True, text=True, check=True)
    for (name, number), digest in zip(ACCOUNT_IDS.items(), done.stdout.split(), strict=True):
        passwd.append(f"{name}:x:{number}:20000::{homes / name}:/bin/sh")
        lock, expiry = ("!" if name == "carol" else ""), ("1" if name == "dora" else "")
        shadow.append(f"{name}:{lock}{digest}:19000:0:99999:7::{expiry}:")
        (homes / name).mkdir(mode=0o700)
        os.chown(homes / name, number, 20000)
    (etc / "passwd").write_text("\n".join(passwd) + "\n")
    (etc / "shadow").write_text("\n".join(shadow) + "\n")
    (etc / "shadow").chmod(0o600)
    (etc / "group").write_text("root:x:0:\nusers:x:20000:\nnogroup:x:65534:\n")
    (etc / "pam.d" / "hpchub-test").write_text(
        "auth required pam_unix.so nodelay\naccount required pam_unix.so\n"
    )
    return (str(Path(__file__).with_name("namespace.sh")), str(etc))


@pytest.fixture(scope="session")
def directory() -> Iterator[Directory]:
    """One OpenLDAP for all tests: nothing that they do changes it."""
    with TemporaryDirectory(prefix="hpchub-l-", dir="/tmp") as folder, a_directory(Path(folder)) as found:
        yield found


@pytest.fixture(scope="session")
def kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kdc]:
    """One KDC for all tests; gina is there to be locked by one of them."""
    with a_kdc(tmp_path_factory.mktemp("kdc")) as found:
        yield found
