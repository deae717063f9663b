"""The arithmetic of the limits on guessing, on a clock of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.slugs import is_safe_account_name
from hpchub.signer.guessing import (
    NO_ACCOUNT,
    NO_ADDRESS,
    Bucket,
    GuessLimits,
    Limit,
    Pair,
    Standing,
    account_key,
    address_key,
    at_present,
    charged,
    is_known,
    limit_of,
    succeeded,
    wait_s,
)

LIMITS = GuessLimits()
START = 1_700_000_000.0
DAY_S = 24 * 3600


@dataclass
class Book:
    """Attempts that all fail, counted as the guard counts them."""

    now: float = START
    pairs: dict[tuple[str, str], Pair] = field(default_factory=dict)
    buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)

    def fail(self, account: str, address: str) -> Limit | None:
        """One wrong password; what made it wait, if something did."""
        pair = self.pairs.get((account, address), Pair())
        kind = "known" if is_known(pair, self.now) else "unknown"
        standing = Standing(
            pair,
            self.buckets.get(("address", address), Bucket()),
            self.buckets.get((kind, account), Bucket()),
        )
        standing = at_present(LIMITS, standing, self.now)
        limit = limit_of(LIMITS, standing, self.now)
        if limit is None:
            standing = charged(LIMITS, standing, self.now)
        self.pairs[account, address] = standing.pair
        self.buckets["address", address] = standing.address
        self.buckets[kind, account] = standing.account
        return limit

    def know(self, account: str, address: str) -> None:
        self.pairs[account, address] = succeeded(LIMITS, Pair(last=self.now), self.now)


def test_the_wait_of_a_pair_doubles_to_its_longest() -> None:
    """Five tries are free, then 10 s, 20 s, ... 15 minutes, however many failures there were."""
    assert [wait_s(LIMITS, failures) for failures in range(13)] == [
        *[0] * 5, 10, 20, 40, 80, 160, 320, 640, 900,
    ]  # fmt: skip
    assert wait_s(LIMITS, 10**9) == 900


def test_waiting_is_not_lengthened_by_trying() -> None:
    """Attempts that had to wait change nothing: at the end of the wait the next one is looked at."""
    book = Book()
    assert [book.fail("alice", "192.0.2.1") for _ in range(6)] == [None] * 5 + [Limit.PAIR]
    for _ in range(9):
        book.now += 1
        assert book.fail("alice", "192.0.2.1") is Limit.PAIR
    book.now += 1
    assert book.fail("alice", "192.0.2.1") is None


def test_many_addresses_share_one_allowance_for_an_account() -> None:
    """A botnet guesses at one account as often as the site allows, not as often as it has addresses."""
    book = Book()
    looked_at = sum(
        book.fail("alice", f"10.0.{number // 250}.{number % 250}") is None for number in range(5000)
    )
    assert looked_at == LIMITS.per_account
    book.now += LIMITS.window_s / 2
    more = sum(book.fail("alice", f"10.1.0.{number}") is None for number in range(200))
    assert more == LIMITS.per_account // 2


def test_one_address_cannot_try_many_accounts() -> None:
    """Over all names together, an address that none of them knows has one allowance."""
    book = Book()
    looked_at = sum(book.fail(f"user{number}", "192.0.2.1") is None for number in range(1000))
    assert looked_at == LIMITS.per_address


def test_the_owner_gets_in_while_strangers_attack() -> None:
    """Whatever is tried from elsewhere, for days, an address that the account knows is looked at."""
    book = Book()
    book.know("alice", "198.51.100.7")
    for hour in range(48):
        book.now = START + hour * 3600
        for number in range(100):
            book.fail("alice", f"10.0.{hour}.{number}")
        owner = Standing(
            book.pairs["alice", "198.51.100.7"],
            book.buckets.get(("address", "198.51.100.7"), Bucket()),
            book.buckets.get(("known", "alice"), Bucket()),
        )
        assert limit_of(LIMITS, at_present(LIMITS, owner, book.now), book.now) is None


def test_a_neighbour_cannot_use_up_the_owners_allowance() -> None:
    """Somebody at one known address, guessing all day, leaves room for another known address."""
    book = Book()
    book.know("alice", "192.0.2.1")
    book.know("alice", "198.51.100.7")
    limits = set()
    for _ in range(DAY_S // 10):
        book.now += 10
        limits.add(book.fail("alice", "192.0.2.1"))
    assert limits == {None, Limit.PAIR}
    assert book.fail("alice", "198.51.100.7") is None


def test_a_hub_that_lies_about_addresses_is_held_by_the_account() -> None:
    """With any addresses at all, known ones too, a day's guesses at one account stay below 1600."""
    book = Book()
    known = [f"192.0.2.{number}" for number in range(16)]
    for address in known:
        book.know("alice", address)
    looked_at = 0
    for step in range(DAY_S // 60):
        book.now += 60
        for address in (*known, *(f"10.{step % 250}.{step // 250}.{number}" for number in range(5))):
            looked_at += book.fail("alice", address) is None
    assert LIMITS.per_account * 20 < looked_at < 1600


def test_a_clock_that_is_set_back_holds_nobody_for_good() -> None:
    """A failure from the future waits as long as any other, counted from now; nothing is forgiven."""
    book = Book(now=START + 30 * DAY_S)
    for _ in range(5):
        book.fail("alice", "192.0.2.1")
    book.now = START
    assert book.fail("alice", "192.0.2.1") is Limit.PAIR
    book.now = START + 10
    assert book.fail("alice", "192.0.2.1") is None


def test_failures_are_forgotten_after_a_day_and_addresses_after_ninety() -> None:
    """A day without a failure ends the count of a pair; 90 days without a success, that it is known."""
    pair = Pair(failures=12, last=START)
    later = at_present(LIMITS, Standing(pair, Bucket(), Bucket()), START + DAY_S).pair
    assert later.failures == 0
    known = succeeded(LIMITS, pair, START)
    assert is_known(known, START + 90 * DAY_S - 1)
    assert not is_known(known, START + 90 * DAY_S)


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("hpchub doctor", NO_ADDRESS),
        ("", NO_ADDRESS),
        ("1.2.3.4, 5.6.7.8", NO_ADDRESS),
    ],
)
def test_address_keys(source: str, key: str) -> None:
    """IPv6 counts by /64, IPv4 in IPv6's clothes as IPv4, and all that is no address together."""
    assert address_key(source) == key


@given(st.text())
def test_account_keys(name: str) -> None:
    """Capitals make no new account, and no name is taken for the others' common one."""
    assert account_key(name.upper()) == account_key(name.upper().lower())
    assert (account_key(name) == NO_ACCOUNT) is not is_safe_account_name(name)
