"""The password file: one amount of work for everybody, and a strict file."""

from __future__ import annotations

from pathlib import Path

import argon2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.secret import Secret
from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import ConfigError, InvalidRequest, SiteError
from hpchub.signer import password_file
from hpchub.signer.password_file import PasswordFileProof, load_password_file, set_password
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.settings import SignerSettings

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@pytest.fixture
def path(settings: SignerSettings) -> Path:
    assert settings.proof.file is not None
    return settings.proof.file


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What each argon2 computation cost: passes, memory, lanes."""
    seen: list[tuple[int, int, int]] = []
    verify = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, digest: str, password: bytes) -> bool:
        cost = argon2.extract_parameters(digest)
        seen.append((cost.time_cost, cost.memory_cost, cost.parallelism))
        return verify(self, digest, password)

    monkeypatch.setattr(password_file.argon2.PasswordHasher, "verify", counted)
    return seen


@pytest.mark.parametrize(
    ("username", "password", "reason"),
    [
        ("alice", "wrong", "wrong password"),
        ("nobody.here", "wrong", "unknown user"),
        ("carol", "canary-carol-80", "locked account"),
        ("carol", "wrong", "wrong password"),
        ("root", "wrong", "unsafe account name"),
        ("../alice", "wrong", "unsafe account name"),
        ("alice\n", "canary-alice-77", "unsafe account name"),
        ("alice\0", "canary-alice-77", "unsafe account name"),
        ("x" * 8000, "wrong", "unsafe account name"),
        ("", "", "unsafe account name"),
        ("alice", "", "unusable password"),
        ("alice", "canary-alice-77\0", "unusable password"),
        ("alice", "x" * 8000, "unusable password"),
        ("alice", "\ud800", "unusable password"),
        ("Alice", "canary-alice-77", "unknown user"),
        ("\uff41lice", "canary-alice-77", "unsafe account name"),
    ],
)
def test_every_refusal_costs_one_verification_of_the_same_cost(
    path: Path, costs: list[tuple[int, int, int]], username: str, password: str, reason: str
) -> None:
    """Wrong, unknown, locked, unsafe: one argon2 computation with the parameters of the real hashes."""
    assert PasswordFileProof(path).verify(username, Secret(password)) == Refused(reason)
    assert costs == [(1, 64, 1)]


def test_good_passwords_are_accepted(path: Path, passwords: dict[str, str], costs: list[object]) -> None:
    """Dots, dashes, digits, capitals and 32 characters work, at the cost of a refusal."""
    assert max(map(len, passwords)) == 32
    for name, password in passwords.items():
        assert PasswordFileProof(path).verify(name, Secret(password)) == Accepted(name, "password")
    assert len(costs) == len(passwords)


@pytest.mark.slow
def test_an_empty_file_costs_as_much_as_a_full_one(tmp_path: Path, costs: list[tuple[int, int, int]]) -> None:
    """With no account at all the work is that of the hashes that set-password would write."""
    path = tmp_path / "passwords"
    path.touch(0o600)
    assert PasswordFileProof(path).verify("alice", Secret("x")) == Refused("unknown user")
    set_password(path, "alice", Secret("y"))
    assert PasswordFileProof(path).verify("alice", Secret("x")) == Refused("wrong password")
    assert costs == [(3, 65536, 4)] * 2


def test_a_change_counts_at_once(path: Path) -> None:
    """A password set, or an account locked, needs no restart."""
    proof = PasswordFileProof(path)
    set_password(path, "alice", Secret("new one"), CHEAP)
    assert proof.verify("alice", Secret("new one")) == Accepted("alice", "password")
    path.write_text(path.read_text().replace("alice:", "alice:!"))
    assert proof.verify("alice", Secret("new one")) == Refused("locked account")


def test_setting_a_password_keeps_all_else(path: Path) -> None:
    """Other accounts, comments and a lock stay; the file stays private."""
    path.write_text("# staff: do not edit\n\n" + path.read_text())
    before = load_password_file(path)
    set_password(path, "carol", Secret("another"), CHEAP)
    after = load_password_file(path)
    assert after["carol"].locked
    assert after["carol"].digest != before["carol"].digest
    assert {name: entry for name, entry in after.items() if name != "carol"} == {
        name: entry for name, entry in before.items() if name != "carol"
    }
    assert path.read_text().startswith("# staff")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in path.parent.iterdir() if found.name.startswith(".")] == []


@given(st.text(max_size=40))
def test_only_safe_names_get_a_password(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """set-password writes no line that the file's reader would refuse."""
    path = tmp_path_factory.mktemp("names") / "passwords"
    try:
        set_password(path, name, Secret("x"), CHEAP)
    except InvalidRequest:
        assert not is_safe_account_name(name)
        assert not path.exists()
    else:
        assert list(load_password_file(path)) == [name]


@pytest.mark.parametrize("password", ["", "x\0y", "x" * 1025])
def test_unusable_passwords_are_not_set(path: Path, password: str) -> None:
    """Empty, endless and cut by a NUL: nothing changes."""
    before = path.read_bytes()
    with pytest.raises(InvalidRequest, match="unusable password"):
        set_password(path, "alice", Secret(password), CHEAP)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("alice", "not name:hash"),
        ("root:$argon2id$v=19$m=64,t=1,p=1$qxksedqnRx8xxFaLVBPhsg$zjNjN5JOUCC7F8b/W4LHYw", "safe account"),
        ("dave:", "no argon2id hash"),
        ("dave:plain text", "no argon2id hash"),
        ("dave:$2b$12$abcdefghijklmnopqrstuv", "no argon2id hash"),
        ("dave:$argon2i$v=19$m=64,t=1,p=1$qxksedqnRx8xxFaLVBPhsg$zjNjN5JOUCC7F8b/W4LHYw", "no argon2id"),
        ("alice:$argon2id$v=19$m=64,t=1,p=1$qxksedqnRx8xxFaLVBPhsg$zjNjN5JOUCC7F8b/W4LHYw", "already"),
    ],
)
def test_a_wrong_line_is_named_and_nobody_logs_in(path: Path, line: str, what: str) -> None:
    """The file is read strictly; the person is not told its path."""
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ConfigError) as caught:
        load_password_file(path)
    assert caught.value.problems[0].startswith(f"{path}:5: ")
    assert what in caught.value.problems[0]
    with pytest.raises(SiteError) as refused:
        PasswordFileProof(path).verify("alice", Secret("canary-alice-77"))
    assert str(path) not in str(refused.value)


def test_hashes_do_not_show_themselves(path: Path) -> None:
    """The repr of what is read from the file holds no hash."""
    assert "argon2" not in repr(load_password_file(path))


def test_an_unchanged_file_is_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settled file is not read again; a change of content, mode or place counts at once all the same."""
    reads: list[Path] = []

    def load(asked: Path) -> dict[str, password_file.Entry]:
        reads.append(asked)
        return real(asked)

    real = password_file.load_password_file
    monkeypatch.setattr(password_file, "load_password_file", load)
    proof = PasswordFileProof(path)
    assert [proof.account_problem("alice") for _ in range(3)] == [""] * 3
    assert len(reads) == 3  # it was written a moment ago
    monkeypatch.setattr(password_file, "_SETTLED_NS", -(10**12))
    assert [proof.account_problem("alice") for _ in range(3)] == [""] * 3
    assert len(reads) == 4
    text = path.read_text()
    path.write_text(text.replace("alice:", "alice:!"))
    assert proof.account_problem("alice") == "locked account"
    swapped = path.with_name("swapped")
    swapped.write_text(text)
    swapped.chmod(0o600)
    swapped.replace(path)
    assert proof.account_problem("alice") == ""
    path.chmod(0o644)
    with pytest.raises(SiteError):
        proof.account_problem("alice")
    path.unlink()
    with pytest.raises(SiteError):
        proof.account_problem("alice")
