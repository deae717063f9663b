"""The second factor: who needs one, whether a code is right, and how somebody gets one.

A code, or the answer of a security key, is looked at together with the password, in one call and with the
same work whatever is right; a code is used up only where both are. Accounts are compared without their
capitals, as failures are counted: a directory may take `Alice` for `alice`, who would otherwise seem to have
no second factor.
"""

from __future__ import annotations

import grp
import hashlib
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, NotAllowed, SiteError
from hpchub.signer.factor_key import FactorKey
from hpchub.signer.factor_rows import has_app, has_factor, use_recovery_code, use_step
from hpchub.signer.factor_settings import FactorKind, FactorSettings, is_required
from hpchub.signer.guessing import account_key
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.security_keys import Pressed, SecurityKeys, is_assertion, keys_of
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


@dataclass(frozen=True, slots=True)
class Offer:
    """What somebody's app needs. Shown to that person, and kept nowhere else."""

    account: str
    uri: Secret
    seed: Secret


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A second factor that counts from now on, and the codes for the day on which it is lost.

    No codes where the person has some from an earlier one.
    """

    account: str
    recovery_codes: tuple[Secret, ...]


@dataclass(frozen=True, slots=True)
class Mistyped:
    """The first code was wrong; whose."""

    account: str


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a code is: the step of the app's code, or the digest of a recovery code, or neither."""

    has_app: bool
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
        self.state = state
        self.key = key
        self.settings = settings
        self.now = now
        self.keys = SecurityKeys(key, settings.webauthn, settings.issuer, now) if settings.webauthn else None
        self._stand_in = key.seal(_NOBODY, secrets.token_bytes(SEED_BYTES))
        self._check_key()
        for group in settings.groups:
            try:
                grp.getgrnam(group)
            except KeyError as error:
                raise ConfigError(f"second_factor.groups: this machine has no group {group!r}.") from error

    def judge(
        self,
        username: str,
        code: Secret,
        verdict: Accepted | Refused,
        *,
        may_use_up: bool,
        purpose: str = "",
    ) -> Accepted | Refused:
        """The verdict on password and second factor together.

        Args:
            username: As it was typed.
            code: What stood in the code's field, empty where nothing did; or a security key's answer.
            verdict: What the password was worth.
            may_use_up: Whether a right code is used up by this; if not, the login is refused anyway.
            purpose: What a security key's challenge must have been made for.

        Raises:
            SiteError: It cannot be told.
        """
        account = account_key(verdict.account if isinstance(verdict, Accepted) else username)
        with self.state.transaction() as connection:
            finding = self._find(connection, account, code)
            pressed = self._pressed(connection, account, code, purpose)
            if isinstance(verdict, Refused):
                return verdict
            if not finding.has_app and not keys_of(connection, account):
                return replace(verdict, must_enrol=is_required(self.settings, verdict.account))
            if factor := _factor_of(finding, pressed):
                if may_use_up:
                    self._use_up(connection, account, finding, pressed)
                must_enrol = not self._has_allowed(connection, account)
                return replace(
                    verdict, factor=f"{verdict.factor}+{factor}", must_enrol=must_enrol, has_second=True
                )
        return Refused(pressed.reason or ("wrong code" if code.reveal() else "no code"))

    def _pressed(self, connection: sqlite3.Connection, account: str, code: Secret, purpose: str) -> Pressed:
        if not is_assertion(code):
            return Pressed()
        if self.keys is None:
            return Pressed(reason="a security key, which this site does not have")
        return self.keys.check(connection, account, code, purpose)

    def _use_up(
        self, connection: sqlite3.Connection, account: str, finding: _Finding, pressed: Pressed
    ) -> None:
        if pressed.key_id and self.keys is not None:
            self.keys.use(connection, pressed)
        elif finding.step is not None:
            use_step(connection, account, finding.step)
        elif finding.digest is not None:
            use_recovery_code(connection, account, finding.digest)

    def _has_allowed(self, connection: sqlite3.Connection, account: str) -> bool:
        """Whether one of what the account has is of a kind that the site has."""
        kinds = self.settings.kinds
        return (FactorKind.TOTP in kinds and has_app(connection, account)) or (
            FactorKind.WEBAUTHN in kinds and bool(keys_of(connection, account))
        )

    def begin(self, account: str, *, has_second: bool = False) -> Secret:
        """A ticket, good for ten minutes, with which the person sets up a second factor.

        Args:
            account: Whose.
            has_second: Whether a second factor has just been proven. Whoever has one cannot do without.

        Raises:
            NotAllowed: The account has one, which was not proven: it was set up a moment ago.
        """
        ticket = Secret(secrets.token_urlsafe(32))
        sealed = self.key.seal(account_key(account), secrets.token_bytes(SEED_BYTES))
        with self.state.transaction() as connection:
            if not has_second and has_factor(connection, account_key(account)):
                raise _expired()
            connection.execute("DELETE FROM enrolments WHERE expires_at < ?", (self.now(),))
            connection.execute(
                "INSERT OR REPLACE INTO enrolments VALUES (?, ?, ?, ?, ?, 0)",
                (account_key(account), account, _digest(ticket), sealed, self.now() + ENROLMENT_S),
            )
        return ticket

    def offer(self, ticket: Secret) -> Offer:
        """What to show to whoever has the ticket. NotAllowed where it is none, or no longer."""
        self.check_kind(FactorKind.TOTP)
        with self.state.transaction() as connection:
            key, account, seed = self._pending(connection, ticket)
        if not key:
            raise _expired()
        uri = provisioning_uri(seed, account, self.settings.issuer)
        return Offer(account, Secret(uri), Secret(render_seed(seed)))

    def confirm(self, ticket: Secret, code: Secret) -> Enrolled | Mistyped:
        """Have the second factor count, once the app has shown a right code.

        Raises:
            NotAllowed: The ticket is none, no longer, or has been tried too often.
        """
        self.check_kind(FactorKind.TOTP)
        with self.state.transaction() as connection:
            key, account, seed = self._pending(connection, ticket)
            step = matching_step(seed, code.reveal(), self.now()) if key else None
            if step is not None:
                codes = self.codes_for_first(connection, key)
                connection.execute(
                    "INSERT OR REPLACE INTO second_factors VALUES (?, ?, ?, ?)",
                    (key, self.key.seal(key, seed), step, self.now()),
                )
                # Another app is another seed.
                connection.execute("DELETE FROM enrolments WHERE account = ?", (key,))
                return Enrolled(account, codes)
            connection.execute("UPDATE enrolments SET tries = tries + 1 WHERE account = ?", (key,))
        if not key:
            raise _expired()
        return Mistyped(account)

    def _check_key(self) -> None:
        with self.state.transaction() as connection:
            row = connection.execute("SELECT sealed FROM factor_key_check").fetchone()
            if row is None:
                sealed = self.key.seal(_NOBODY, _KEY_CHECK)
                connection.execute("INSERT INTO factor_key_check VALUES (1, ?)", (sealed,))
                return
        try:
            self.key.open(_NOBODY, row[0])
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
        seed = self.key.open(account if row else _NOBODY, sealed)
        step = matching_step(seed, code.reveal(), self.now())
        normal, can_be_one = normal_recovery_code(code.reveal())
        digest = self.key.digest(account, normal)
        held = connection.execute(
            "SELECT 1 FROM recovery_codes WHERE account = ? AND digest = ?", (account, digest)
        ).fetchone()
        fresh = row is not None and step is not None and step > last_step  # once: RFC 6238, section 5.2
        return _Finding(row is not None, step if fresh else None, digest if held and can_be_one else None)

    def _pending(self, connection: sqlite3.Connection, ticket: Secret) -> tuple[str, str, bytes]:
        """The key, the account and the seed of an enrolment under way; all empty where there is none."""
        row = connection.execute(
            "SELECT account, name, seed FROM enrolments WHERE ticket = ? AND expires_at > ? AND tries < ?",
            (_digest(ticket), self.now(), _MOST_TRIES),
        ).fetchone()
        return (row[0], row[1], self.key.open(row[0], row[2])) if row else ("", "", b"")

    def account_of(self, connection: sqlite3.Connection, ticket: Secret) -> tuple[str, str]:
        """The key and the name of the account whose ticket that is. NotAllowed where it is none."""
        key, account, _ = self._pending(connection, ticket)
        if not key:
            raise _expired()
        return key, account

    def check_kind(self, kind: FactorKind) -> None:
        """Return where the site has that kind; NotAllowed otherwise."""
        if kind not in self.settings.kinds:
            raise NotAllowed("Second factors of that kind are not used here.")

    def codes_for_first(self, connection: sqlite3.Connection, account: str) -> tuple[Secret, ...]:
        """New recovery codes where the account is about to get its first second factor; else none."""
        return () if has_factor(connection, account) else self.renew_codes(connection, account)

    def renew_codes(self, connection: sqlite3.Connection, account: str) -> tuple[Secret, ...]:
        """New recovery codes, in place of those from before."""
        codes = new_recovery_codes(secrets.token_bytes)
        connection.execute("DELETE FROM recovery_codes WHERE account = ?", (account,))
        digests = (self.key.digest(account, normal_recovery_code(code)[0]) for code in codes)
        connection.executemany(
            "INSERT INTO recovery_codes VALUES (?, ?)", [(account, digest) for digest in digests]
        )
        return tuple(map(Secret, codes))


def _factor_of(finding: _Finding, pressed: Pressed) -> str:
    """What was proven, in one word; empty where nothing was."""
    if pressed.key_id:
        return FactorKind.WEBAUTHN.value
    if finding.step is not None:
        return FactorKind.TOTP.value
    return "recovery" if finding.digest is not None else ""


def _digest(ticket: Secret) -> bytes:
    """A ticket is 256 random bits, so nothing slower is needed."""
    return hashlib.sha256(ticket.reveal().encode("utf-8", "surrogatepass")).digest()


def _expired() -> NotAllowed:
    return NotAllowed("This page has expired.", "Log in again to set up your second factor.")
