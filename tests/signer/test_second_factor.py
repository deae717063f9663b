"""Second factors in the signer's state file: each code once, sealed, and not to be told apart."""

from __future__ import annotations

import base64
import grp
import os
import pwd
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, NotAllowed, SiteError
from hpchub.signer.factor_key import FactorKey, load_factor_key, make_factor_key
from hpchub.signer.factor_rows import forget_second_factor
from hpchub.signer.factor_settings import FactorSettings, Required
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.second_factor import ENROLMENT_S, Enrolled, Mistyped, SecondFactors
from hpchub.signer.state import State

from .conftest import Clock
from .factor import code_of

ALL = FactorSettings(required=Required.ALL)
RIGHT, WRONG = Accepted("alice", "password"), Refused("wrong password")
KEY = FactorKey(b"k" * 32)


@pytest.fixture
def factors(state: State, clock: Clock) -> SecondFactors:
    return SecondFactors(state, KEY, ALL, clock)


@dataclass
class Person:
    """Somebody with an app."""

    seed: str
    codes: tuple[Secret, ...]
    clock: Clock

    def code(self, away_s: float = 0) -> str:
        return code_of(self.seed, self.clock.now + away_s)


def enrolled(factors: SecondFactors, clock: Clock, account: str = "alice") -> Person:
    ticket = factors.begin(account)
    seed = factors.offer(ticket).seed.reveal()
    done = factors.confirm(ticket, Secret(code_of(seed, clock.now)))
    assert isinstance(done, Enrolled)
    clock.now += 60
    return Person(seed, done.recovery_codes, clock)


def judged(
    factors: SecondFactors, code: str, verdict: Accepted | Refused = RIGHT, *, counts: bool = True
) -> str:
    """The factor that was proven, `must enrol`, or why not."""
    found = factors.judge("alice", Secret(code), verdict, may_use_up=counts)
    if isinstance(found, Refused):
        return found.reason
    return "must enrol" if found.must_enrol else found.factor


def test_enrolment_to_login(factors: SecondFactors, clock: Clock) -> None:
    """Without one a person must enrol; it counts after its first code, which is used up by that."""
    assert judged(factors, "") == "must enrol"
    ticket = factors.begin("alice")
    seed = factors.offer(ticket).seed.reveal()
    assert factors.offer(ticket).seed.reveal() == seed
    assert judged(factors, code_of(seed, clock.now)) == "must enrol"
    first = code_of(seed, clock.now)
    assert isinstance(factors.confirm(ticket, Secret(first)), Enrolled)
    assert judged(factors, first) == "wrong code"
    clock.now += 30
    assert judged(factors, code_of(seed, clock.now)) == "password+totp"
    assert judged(factors, "") == "no code"
    with pytest.raises(NotAllowed):
        factors.offer(ticket)


def test_each_code_once(factors: SecondFactors, clock: Clock) -> None:
    """A code that let somebody in does so never again, and neither does one from before it."""
    person = enrolled(factors, clock)
    before, code, after = person.code(-30), person.code(), person.code(30)
    assert judged(factors, code) == "password+totp"
    assert [judged(factors, one) for one in (code, before)] == ["wrong code"] * 2
    assert judged(factors, after) == "password+totp"
    clock.now += 30
    assert judged(factors, after) == "wrong code"


def test_one_of_many_at_once(factors: SecondFactors, clock: Clock, folder: Path) -> None:
    """Two processes' worth of state, sixteen threads, one code: one success. The same for a recovery code."""
    person = enrolled(factors, clock)
    other = State(folder)
    both = (factors, SecondFactors(other, KEY, ALL, clock))
    for code in (person.code(), person.codes[0].reveal()):
        gate = threading.Barrier(16)

        def attempt(number: int, code: str = code, gate: threading.Barrier = gate) -> str:
            gate.wait()
            return judged(both[number % 2], code)

        with ThreadPoolExecutor(16) as pool:
            said = list(pool.map(attempt, range(16)))
        assert said.count("wrong code") == 15
    other.close()


def test_used_codes_stay_used_over_a_restart(folder: Path, clock: Clock) -> None:
    """A signer that starts anew knows which codes are used up."""
    first = State(folder)
    factors = SecondFactors(first, KEY, ALL, clock)
    person = enrolled(factors, clock)
    code, recovery = person.code(), person.codes[3].reveal()
    assert judged(factors, code) == "password+totp"
    assert judged(factors, recovery) == "password+recovery"
    first.close()
    second = State(folder)
    factors = SecondFactors(second, KEY, ALL, clock)
    assert [judged(factors, one) for one in (code, recovery)] == ["wrong code"] * 2
    second.close()


def test_clocks_that_are_wrong(factors: SecondFactors, clock: Clock) -> None:
    """30 s either way are allowed for, 60 s are not; a clock set back replays nothing."""
    person = enrolled(factors, clock)
    clock.now += 600
    assert judged(factors, person.code(-60)) == "wrong code"
    assert judged(factors, person.code(60)) == "wrong code"
    assert judged(factors, person.code(-30)) == "password+totp"
    assert judged(factors, person.code(30)) == "password+totp"
    used = person.code()
    clock.now -= 300
    assert judged(factors, person.code()) == "wrong code"
    clock.now += 300
    assert judged(factors, used) == "wrong code"
    clock.now += 60
    assert judged(factors, person.code()) == "password+totp"


def test_recovery_codes_work_once_each(factors: SecondFactors, clock: Clock) -> None:
    """All ten, however typed; nobody else's, and none made up."""
    person = enrolled(factors, clock)
    bob = enrolled(factors, clock, "bob")
    for code in person.codes:
        assert judged(factors, code.reveal().lower().replace("-", " ")) == "password+recovery"
        assert judged(factors, code.reveal()) == "wrong code"
    assert judged(factors, bob.codes[0].reveal()) == "wrong code"
    assert judged(factors, "AAAA-AAAA-AAAA-AAAA") == "wrong code"


def test_without_the_password_nothing_is_used_up(factors: SecondFactors, clock: Clock) -> None:
    """A right code with a wrong password, or during a limit, is still good afterwards."""
    person = enrolled(factors, clock)
    code, recovery = person.code(), person.codes[0].reveal()
    for one in (code, recovery):
        assert judged(factors, one, WRONG) == "wrong password"
        assert judged(factors, one, counts=False).startswith("password+")
    assert judged(factors, code) == "password+totp"
    assert judged(factors, recovery) == "password+recovery"


def test_the_same_work_for_everybody(
    factors: SecondFactors, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enrolled or not, known or not, right or wrong: one opened seed, one search for a recovery code."""
    enrolled(factors, clock)
    work: list[str] = []
    real_open, real_digest = FactorKey.open, FactorKey.digest

    def counted_open(self: FactorKey, account: str, sealed: bytes) -> bytes:
        work.append("open")
        return real_open(self, account, sealed)

    def counted_digest(self: FactorKey, account: str, code: str) -> bytes:
        work.append("digest")
        return real_digest(self, account, code)

    monkeypatch.setattr(FactorKey, "open", counted_open)
    monkeypatch.setattr(FactorKey, "digest", counted_digest)
    for name in ("alice", "nobody.here", "root"):
        for code in ("", "000000", "AAAA-AAAA-AAAA-AAAA", "\ud800"):
            for verdict in (RIGHT, WRONG):
                work.clear()
                factors.judge(name, Secret(code), verdict, may_use_up=True)
                assert work == ["open", "digest"]


def test_capitals_make_no_new_account(factors: SecondFactors, clock: Clock) -> None:
    """Where a directory takes ALICE for alice, ALICE has alice's second factor, not none."""
    person = enrolled(factors, clock)
    verdict = Accepted("ALICE", "password")
    assert judged(factors, "", verdict) == "no code"
    assert judged(factors, person.code(), verdict) == "password+totp"


def test_a_ticket_is_good_for_little(factors: SecondFactors, clock: Clock) -> None:
    """Ten minutes, five wrong codes, the newest only, and none that is made up."""
    ticket = factors.begin("alice")
    seed = factors.offer(ticket).seed.reveal()
    for _ in range(5):
        assert factors.confirm(ticket, Secret("12345")) == Mistyped("alice")
    with pytest.raises(NotAllowed, match="expired"):
        factors.confirm(ticket, Secret(code_of(seed, clock.now)))
    older, newer = factors.begin("alice"), factors.begin("alice")
    for wrong in (older, Secret("made up"), Secret(""), Secret("\ud800")):
        with pytest.raises(NotAllowed, match="expired"):
            factors.offer(wrong)
    clock.now += ENROLMENT_S
    with pytest.raises(NotAllowed, match="expired"):
        factors.offer(newer)


def test_reset(factors: SecondFactors, state: State, clock: Clock) -> None:
    """After a reset neither app nor recovery codes count, and the person enrols again."""
    person = enrolled(factors, clock)
    pending = factors.begin("alice", has_second=True)
    assert forget_second_factor(state, "Alice")
    assert not forget_second_factor(state, "alice")
    assert judged(factors, person.code()) == "must enrol"
    assert judged(factors, person.codes[0].reveal()) == "must enrol"
    with pytest.raises(NotAllowed):
        factors.offer(pending)


def test_who_needs_one(state: State, clock: Clock) -> None:
    """None but those named, by name or Unix group; one that nobody knows does. Whoever has one is asked."""
    me = pwd.getpwuid(os.geteuid())
    group = grp.getgrgid(me.pw_gid).gr_name
    other = next(
        one.gr_name for one in grp.getgrall() if one.gr_gid not in os.getgrouplist(me.pw_name, me.pw_gid)
    )
    some = FactorSettings(required=Required.SOME)

    def needs(settings: FactorSettings, account: str) -> bool:
        found = SecondFactors(state, KEY, settings, clock).judge(
            account, Secret(""), Accepted(account, "password"), may_use_up=True
        )
        assert isinstance(found, Accepted)
        return found.must_enrol

    assert needs(replace(some, users=("Alice",)), "alice")
    assert not needs(replace(some, users=("alice",)), "bob")
    assert needs(replace(some, groups=(group,)), me.pw_name)
    assert not needs(replace(some, groups=(other,)), me.pw_name)
    assert needs(replace(some, groups=(other,)), "nobody.here")
    factors = SecondFactors(state, KEY, replace(some, users=("bob",)), clock)
    person = enrolled(factors, clock)
    assert judged(factors, "") == "no code"
    assert judged(factors, person.code()) == "password+totp"
    with pytest.raises(ConfigError, match="no group 'no-such-group'"):
        SecondFactors(state, KEY, replace(some, groups=("no-such-group",)), clock)


def test_nothing_is_in_clear(factors: SecondFactors, clock: Clock, folder: Path) -> None:
    """No file holds a seed, a recovery code or a ticket, in any of the forms that they are known in."""
    person = enrolled(factors, clock)
    ticket = factors.begin("bob")
    offer = factors.offer(ticket)
    shown = repr((offer, factors, ticket)) + str(offer)
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"alice" in stored
    for seed in (person.seed, offer.seed.reveal()):
        for form in _forms(seed.replace(" ", "")):
            assert form not in stored
        assert seed not in shown
    for code in (*person.codes, ticket):
        plain = code.reveal().replace("-", "")
        assert code.reveal().encode() not in stored
        assert plain.encode() not in stored
        assert code.reveal() not in shown
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def _forms(seed: str) -> tuple[bytes, ...]:
    raw = base64.b32decode(seed)
    return raw, seed.encode(), raw.hex().encode(), base64.b64encode(raw)


def test_a_seed_of_another_account_does_not_open(factors: SecondFactors, state: State, clock: Clock) -> None:
    """Whoever can write the file cannot give alice a seed that they know: it was sealed for bob."""
    enrolled(factors, clock, "alice")
    enrolled(factors, clock, "bob")
    with state.transaction() as connection:
        (seed,) = connection.execute("SELECT seed FROM second_factors WHERE account = 'bob'").fetchone()
        connection.execute("UPDATE second_factors SET seed = ? WHERE account = 'alice'", (seed,))
    with pytest.raises(SiteError):
        judged(factors, "000000")


def test_the_key_is_a_file_of_its_own(folder: Path, state: State, clock: Clock) -> None:
    """Made with mode 0600, never replaced; another key, a loose or broken one is refused at the start."""
    path = folder / "second_factor_key"
    with pytest.raises(ConfigError, match="is not there"):
        load_factor_key(path)
    make_factor_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigError):
        make_factor_key(path)
    SecondFactors(state, load_factor_key(path), ALL, clock)
    with pytest.raises(ConfigError, match="not the one"):
        SecondFactors(state, KEY, ALL, clock)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod"):
        load_factor_key(path)
    for content in ("c2hvcnQ=", "no base64!"):
        path.write_text(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="second_factor_key"):
            load_factor_key(path)
