"""The second factor: who needs one, whether a code is right, and how somebody gets one.

A code is looked at together with the password, in one call and with the same work whatever is right; it is
used up only where both are. Accounts are compared without their capitals, as failures are counted: a
directory may take `Alice` for `alice`, who would otherwise seem to have no second factor.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, NotAllowed, SiteError
from hpchub.signer.factor_key import FactorKey
from hpchub.signer.guessing import account_key
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.state import State
from hpchub.signer.totp import (
    SEED_BYTES,
    matching_step,
    new_recovery_codes,
    normal_recovery_code,
    provisioning_uri,
    render_seed,
)

ENROLMENT_S = 10 * 60
_MOST_TRIES = 5  # of the first code; then the password is asked for again
_NOBODY = "-"  # no safe account name
_KEY_CHECK = b"hpchub"


class Required(StrEnum):
    """Of whom a second factor is asked. Whoever has one is asked for it, unless nobody is."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorSettings:
    """The site's choice. `groups` and `users` belong to `some`; `issuer` is what apps show."""

    required: Required = Required.NONE
    groups: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    issuer: str = "hpchub"
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What somebody's app needs. Shown to that person, and kept nowhere else."""

    account: str
    uri: Secret
    seed: Secret


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A second factor that counts from now on, and the codes for the day on which the app is lost."""

    account: str
    recovery_codes: tuple[Secret, ...]


@dataclass(frozen=True, slots=True)
class Mistyped:
    """The first code was wrong; whose."""

    account: str


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a code is: the step of the app's code, or the digest of a recovery code, or neither."""

    enrolled: bool
    step: int | None = None
    digest: bytes | None = field(default=None, repr=False)


class SecondFactors:
    """Keeps them in the signer's state file, sealed. Blocks: call it from a thread."""

    def __init__(
        self, state: State, key: FactorKey, settings: FactorSettings, now: Callable[[], float] = time.time
    ) -> None:
        """Take the key, if it is the one that what is there was sealed with.

        Raises:
            ConfigError: It is another, or the settings name a group that this machine does not have.
        """
        self._state = state
        self._key = key
        self._settings = settings
        self._now = now
        self._stand_in = key.seal(_NOBODY, secrets.token_bytes(SEED_BYTES))
        self._check_key()
        for group in settings.groups:
            try:
                grp.getgrnam(group)
            except KeyError as error:
                raise ConfigError(f"second_factor.groups: this machine has no group {group!r}.") from error

    def judge(
        self, username: str, code: Secret, verdict: Accepted | Refused, *, may_use_up: bool
    ) -> Accepted | Refused:
        """The verdict on password and code together.

        Args:
            username: As it was typed.
            code: What stood in the code's field; empty where nothing did.
            verdict: What the password was worth.
            may_use_up: Whether a right code is used up by this; if not, the login is refused anyway.

        Raises:
            SiteError: It cannot be told.
        """
        account = account_key(verdict.account if isinstance(verdict, Accepted) else username)
        with self._state.transaction() as connection:
            finding = self._find(connection, account, code)
            if isinstance(verdict, Refused):
                return verdict
            if not finding.enrolled:
                return replace(verdict, must_enrol=self._is_required(verdict.account))
            if finding.step is not None:
                if may_use_up:
                    _use_step(connection, account, finding.step)
                return replace(verdict, factor=f"{verdict.factor}+totp")
            if finding.digest is not None:
                if may_use_up:
                    _use_recovery_code(connection, account, finding.digest)
                return replace(verdict, factor=f"{verdict.factor}+recovery")
        return Refused("wrong code" if code.reveal() else "no code")

    def begin(self, account: str) -> Secret:
        """A ticket, good for ten minutes, with which the person sets up a second factor."""
        ticket = Secret(secrets.token_urlsafe(32))
        sealed = self._key.seal(account_key(account), secrets.token_bytes(SEED_BYTES))
        with self._state.transaction() as connection:
            connection.execute("DELETE FROM enrolments WHERE expires_at < ?", (self._now(),))
            connection.execute(
                "INSERT OR REPLACE INTO enrolments VALUES (?, ?, ?, ?, ?, 0)",
                (account_key(account), account, _digest(ticket), sealed, self._now() + ENROLMENT_S),
            )
        return ticket

    def offer(self, ticket: Secret) -> Offer:
        """What to show to whoever has the ticket. NotAllowed where it is none, or no longer."""
        with self._state.transaction() as connection:
            key, account, seed = self._pending(connection, ticket)
        if not key:
            raise _expired()
        uri = provisioning_uri(seed, account, self._settings.issuer)
        return Offer(account, Secret(uri), Secret(render_seed(seed)))

    def confirm(self, ticket: Secret, code: Secret) -> Enrolled | Mistyped:
        """Have the second factor count, once the app has shown a right code.

        Raises:
            NotAllowed: The ticket is none, no longer, or has been tried too often.
        """
        with self._state.transaction() as connection:
            key, account, seed = self._pending(connection, ticket)
            step = matching_step(seed, code.reveal(), self._now()) if key else None
            if step is not None:
                codes = new_recovery_codes(secrets.token_bytes)
                self._enrol(connection, key, seed, step, codes)
                return Enrolled(account, tuple(map(Secret, codes)))
            connection.execute("UPDATE enrolments SET tries = tries + 1 WHERE account = ?", (key,))
        if not key:
            raise _expired()
        return Mistyped(account)

    def _check_key(self) -> None:
        with self._state.transaction() as connection:
            row = connection.execute("SELECT sealed FROM factor_key_check").fetchone()
            if row is None:
                sealed = self._key.seal(_NOBODY, _KEY_CHECK)
                connection.execute("INSERT INTO factor_key_check VALUES (1, ?)", (sealed,))
                return
        try:
            self._key.open(_NOBODY, row[0])
        except SiteError as error:
            raise ConfigError(
                "The key of the second factors is not the one that they were sealed with.",
                "Bring back the old key file.",
            ) from error

    def _find(self, connection: sqlite3.Connection, account: str, code: Secret) -> _Finding:
        """What a code is to an account; the same work for one that has no second factor."""
        row = connection.execute(
            "SELECT seed, last_step FROM second_factors WHERE account = ?", (account,)
        ).fetchone()
        sealed, last_step = row or (self._stand_in, 0)
        seed = self._key.open(account if row else _NOBODY, sealed)
        step = matching_step(seed, code.reveal(), self._now())
        normal, can_be_one = normal_recovery_code(code.reveal())
        digest = self._key.digest(account, normal)
        held = connection.execute(
            "SELECT 1 FROM recovery_codes WHERE account = ? AND digest = ?", (account, digest)
        ).fetchone()
        if row is None:
            return _Finding(enrolled=False)
        fresh = step is not None and step > last_step  # each code once: RFC 6238, section 5.2
        return _Finding(True, step if fresh else None, digest if held and can_be_one else None)

    def _is_required(self, account: str) -> bool:
        """Whether somebody without a second factor needs one. An account that nobody knows does."""
        settings = self._settings
        if settings.required is not Required.SOME:
            return settings.required is Required.ALL
        if account.lower() in {user.lower() for user in settings.users}:
            return True
        if not settings.groups:
            return False
        try:
            member_of = set(os.getgrouplist(account, pwd.getpwnam(account).pw_gid))
            return any(grp.getgrnam(group).gr_gid in member_of for group in settings.groups)
        except KeyError:
            return True

    def _pending(self, connection: sqlite3.Connection, ticket: Secret) -> tuple[str, str, bytes]:
        """The key, the account and the seed of an enrolment under way; all empty where there is none."""
        row = connection.execute(
            "SELECT account, name, seed FROM enrolments WHERE ticket = ? AND expires_at > ? AND tries < ?",
            (_digest(ticket), self._now(), _MOST_TRIES),
        ).fetchone()
        return (row[0], row[1], self._key.open(row[0], row[2])) if row else ("", "", b"")

    def _enrol(
        self, connection: sqlite3.Connection, key: str, seed: bytes, step: int, codes: list[str]
    ) -> None:
        _forget(connection, key)
        connection.execute(
            "INSERT INTO second_factors VALUES (?, ?, ?, ?)",
            (key, self._key.seal(key, seed), step, self._now()),
        )
        digests = (self._key.digest(key, normal_recovery_code(code)[0]) for code in codes)
        connection.executemany(
            "INSERT INTO recovery_codes VALUES (?, ?)", [(key, digest) for digest in digests]
        )


def forget_second_factor(state: State, account: str) -> bool:
    """Forget somebody's second factor and recovery codes; whether there was one. It needs no key."""
    with state.transaction() as connection:
        return _forget(connection, account_key(account))


def _use_step(connection: sqlite3.Connection, account: str, step: int) -> None:
    connection.execute("UPDATE second_factors SET last_step = ? WHERE account = ?", (step, account))


def _use_recovery_code(connection: sqlite3.Connection, account: str, digest: bytes) -> None:
    connection.execute("DELETE FROM recovery_codes WHERE account = ? AND digest = ?", (account, digest))


def _forget(connection: sqlite3.Connection, key: str) -> bool:
    connection.execute("DELETE FROM recovery_codes WHERE account = ?", (key,))
    connection.execute("DELETE FROM enrolments WHERE account = ?", (key,))
    return connection.execute("DELETE FROM second_factors WHERE account = ?", (key,)).rowcount > 0


def _digest(ticket: Secret) -> bytes:
    """A ticket is 256 random bits, so nothing slower is needed."""
    return hashlib.sha256(ticket.reveal().encode("utf-8", "surrogatepass")).digest()


def _expired() -> NotAllowed:
    return NotAllowed("This page has expired.", "Log in again to set up your second factor.")
