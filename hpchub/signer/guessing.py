"""When a login has to wait because others before it failed. Pure: the time is an argument.

Three things are counted, because each alone can be got round or turned against somebody:

- the **pair** of account and address: a growing wait, which hits only who fails there;
- the **address**, over all accounts: who tries many names;
- the **account**, over all addresses: who has many addresses. An address from which the account has
  logged in before has an allowance of its own, so that strangers cannot use up its owner's.

Names and addresses are as the hub reports them, and a hub that was taken over may lie about addresses:
the two allowances of an account hold whatever it says.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from enum import StrEnum

from hpchub.core.slugs import caseless, is_safe_account_name

# What stands for every name that no account can have, and for every source that is no address. Neither
# is a safe account name or an address itself.
NO_ACCOUNT = "-"
NO_ADDRESS = "-"

_IPV6_NETWORK = 64  # what one customer has, at the least


class Limit(StrEnum):
    """Which count made a login wait."""

    PAIR = "pair"
    ADDRESS = "address"
    ACCOUNT = "account"

    @property
    def reason(self) -> str:
        """How the audit log's true reason begins."""
        return f"too many failures of this {self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuessLimits:
    """The site's numbers. Failures; `_s` are seconds.

    `per_account` and `per_account_known` are failures in a `window_s` from addresses that the account has
    not logged in from, and from those that it has. `per_address` counts the former over all accounts.
    """

    free_tries: int = 5
    first_wait_s: int = 10
    longest_wait_s: int = 15 * 60
    per_account: int = 20
    per_account_known: int = 40
    per_address: int = 60
    window_s: int = 3600
    forget_after_s: int = 24 * 3600
    known_for_s: int = 90 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Pair:
    """What is remembered of one account at one address. Times are Unix seconds.

    `refused` counts the attempts since the last success that had to wait.
    """

    failures: int = 0
    last: float = 0
    refused: int = 0
    known_until: float = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """A share of an allowance that is used up, 0 to 1, and drains: what was full is empty a window later."""

    used: float = 0
    at: float = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """All that bears on one attempt. `account` is the allowance for the kind of address that it is."""

    pair: Pair
    address: Bucket
    account: Bucket


def account_key(username: str) -> str:
    """Under which name failures are counted; one for all names that are none."""
    return caseless(username) if is_safe_account_name(username) else NO_ACCOUNT


def address_key(source: str) -> str:
    """Under which address failures are counted: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        address = ipaddress.ip_address(source.strip().partition("%")[0])
    except ValueError:
        return NO_ADDRESS
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False))


def is_known(pair: Pair, now: float) -> bool:
    """Whether the account has logged in from there, lately enough."""
    return now < pair.known_until


def wait_s(limits: GuessLimits, failures: int) -> int:
    """How long after its last failure a pair has to wait: nothing at first, then twice as long each time."""
    beyond = failures - limits.free_tries
    if beyond < 0:
        return 0
    return min(limits.first_wait_s << min(beyond, 32), limits.longest_wait_s)


def at_present(limits: GuessLimits, standing: Standing, now: float) -> Standing:
    """The same, as time has changed it.

    A clock that was set back neither forgives nor holds anybody for longer than the wait itself.
    """
    pair = standing.pair
    if now - pair.last >= limits.forget_after_s:
        pair = replace(pair, failures=0, refused=0)
    pair = replace(pair, last=min(pair.last, now))
    return Standing(pair, _drained(limits, standing.address, now), _drained(limits, standing.account, now))


def limit_of(limits: GuessLimits, standing: Standing, now: float) -> Limit | None:
    """What makes an attempt wait; None where it may be looked at. `standing` is at present."""
    pair = standing.pair
    if now < pair.last + wait_s(limits, pair.failures):
        return Limit.PAIR
    if standing.account.used + _account_share(limits, pair, now) > _FULL:
        return Limit.ACCOUNT
    if not is_known(pair, now) and standing.address.used + 1 / limits.per_address > _FULL:
        return Limit.ADDRESS
    return None


def charged(limits: GuessLimits, standing: Standing, now: float) -> Standing:
    """After one more failure. Charged before the attempt is looked at: of many at once none slips by."""
    pair = standing.pair
    address = standing.address
    if not is_known(pair, now):
        address = replace(address, used=address.used + 1 / limits.per_address)
    account = replace(standing.account, used=standing.account.used + _account_share(limits, pair, now))
    return Standing(replace(pair, failures=pair.failures + 1, last=now), address, account)


def refused(standing: Standing) -> Standing:
    """After an attempt that had to wait. It makes nobody wait longer."""
    return replace(standing, pair=replace(standing.pair, refused=standing.pair.refused + 1))


def refunded(limits: GuessLimits, standing: Standing, *, known: bool) -> Standing:
    """With one failure taken back. `known` says which allowances it was taken from."""
    pair = replace(standing.pair, failures=max(0, standing.pair.failures - 1))
    share = 1 / (limits.per_account_known if known else limits.per_account)
    account = replace(standing.account, used=max(0.0, standing.account.used - share))
    address = standing.address
    if not known:
        address = replace(address, used=max(0.0, address.used - 1 / limits.per_address))
    return Standing(pair, address, account)


def succeeded(limits: GuessLimits, pair: Pair, now: float) -> Pair:
    """The pair after a success: its failures are forgiven, and the address is known."""
    return replace(pair, failures=0, refused=0, known_until=now + limits.known_for_s)


_FULL = 1 + 1e-6  # twenty twentieths may come to a little more than one


def _account_share(limits: GuessLimits, pair: Pair, now: float) -> float:
    return 1 / (limits.per_account_known if is_known(pair, now) else limits.per_account)


def _drained(limits: GuessLimits, bucket: Bucket, now: float) -> Bucket:
    passed_s = max(0.0, now - bucket.at)
    return Bucket(max(0.0, bucket.used - passed_s / limits.window_s), now)
