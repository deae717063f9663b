"""What people change about their own second factors, each with a ticket: add, remove, look, new codes.

Who has a ticket has proven the password, and a second factor where there was one, within ten minutes. The
hub cannot change anything without it, whoever it says is logged in.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from sqlite3 import Connection
from typing import Any, TypeVar

from hpchub.audit import Event, Outcome, Record
from hpchub.core.secret import Secret
from hpchub.errors import InvalidRequest, NotAllowed
from hpchub.signer.factor_rows import has_app, has_factor
from hpchub.signer.factor_settings import FactorKind, is_required
from hpchub.signer.guessing import account_key
from hpchub.signer.recorder import failed
from hpchub.signer.second_factor import Enrolled, SecondFactors
from hpchub.signer.security_keys import LONGEST_NAME, HeldKey, SecurityKeys, keys_of, remove_keys

CHANGE_PURPOSE = "change"
"""What a challenge is bound to that leads to a ticket."""

_APP, _KEY, _CODES = "totp", "webauthn", "recovery"
_KEY_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Held:
    """What an account has, and which kinds it may add. `codes_left` counts recovery codes."""

    account: str
    kinds: tuple[str, ...]
    has_app: bool
    keys: tuple[HeldKey, ...]
    codes_left: int


_Changed = TypeVar("_Changed", Enrolled, Held)


class FactorChanges:
    """Changes the state file. Blocks; every method but `challenge` raises NotAllowed for a wrong ticket."""

    def __init__(self, second_factors: SecondFactors) -> None:
        self._factors = second_factors

    def challenge(self, username: str, purpose: str) -> dict[str, Any]:
        """What a security key is asked at a login, for any name; NotAllowed where the site has no keys."""
        keys = self._keys()
        with self._factors.state.transaction() as connection:
            return keys.ask(connection, account_key(username), purpose)

    def held(self, ticket: Secret) -> Held:
        """What whoever has the ticket has."""
        with self._of(ticket) as (connection, key, account):
            left = connection.execute("SELECT count(*) FROM recovery_codes WHERE account = ?", (key,))
            return Held(
                account,
                tuple(kind.value for kind in self._factors.settings.kinds),
                has_app(connection, key),
                tuple(keys_of(connection, key)),
                int(left.fetchone()[0]),
            )

    def offer_key(self, ticket: Secret) -> dict[str, Any]:
        """What the browser makes a new security key with."""
        keys = self._keys()
        with self._of(ticket) as (connection, key, account):
            return keys.offer(connection, key, account, _purpose(ticket))

    def add_key(self, ticket: Secret, name: str, attestation: Secret) -> Enrolled:
        """Have a security key count. InvalidRequest where it, or its name, will not do."""
        keys = self._keys()
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise InvalidRequest(f"A security key's name has 1 to {LONGEST_NAME} characters.")
        refusal: InvalidRequest | None = None
        with self._of(ticket) as (connection, key, account):
            is_first = not has_factor(connection, key)
            try:
                keys.add(connection, key, name.strip(), attestation, _purpose(ticket))
            except InvalidRequest as error:  # out of the transaction, which keeps that the challenge is spent
                refusal = error
            codes = self._factors.renew_codes(connection, key) if is_first and not refusal else ()
        if refusal is not None:
            raise refusal
        return Enrolled(account, codes)

    def remove(self, ticket: Secret, what: str) -> Held:
        """Forget a security key, by its id, or the app, `totp`; what is left.

        Raises:
            InvalidRequest: It is not there, or it is the last and one is required.
        """
        with self._of(ticket) as (connection, key, account):
            if what == _APP:
                done = connection.execute("DELETE FROM second_factors WHERE account = ?", (key,)).rowcount
            else:
                done = remove_keys(connection, key, what) if _KEY_ID.fullmatch(what) else 0
            if not done:
                raise InvalidRequest("That is not there any more.")
            if not has_factor(connection, key):
                if is_required(self._factors.settings, account):
                    raise InvalidRequest(
                        "That is your only second factor, and this site wants one.", "Add another first."
                    )
                connection.execute("DELETE FROM recovery_codes WHERE account = ?", (key,))
        return self.held(ticket)

    def renew_codes(self, ticket: Secret) -> Enrolled:
        """New recovery codes; those from before count no more."""
        with self._of(ticket) as (connection, key, account):
            if not has_factor(connection, key):
                raise InvalidRequest("Set up a second factor first.")
            return Enrolled(account, self._factors.renew_codes(connection, key))

    def owner(self, ticket: Secret) -> str:
        """Whose ticket that is; empty where it is nobody's."""
        try:
            with self._of(ticket) as (_, _, account):
                return account
        except NotAllowed:
            return ""

    def _keys(self) -> SecurityKeys:
        self._factors.check_kind(FactorKind.WEBAUTHN)
        if self._factors.keys is None:
            raise NotAllowed("Security keys are not used here.")
        return self._factors.keys

    @contextmanager
    def _of(self, ticket: Secret) -> Iterator[tuple[Connection, str, str]]:
        with self._factors.state.transaction() as connection:
            yield connection, *self._factors.account_of(connection, ticket)


class FactorActs:
    """The same for a server: in threads, and each change recorded, whether it ends well or not."""

    def __init__(
        self, second_factors: SecondFactors | None, write: Callable[[Record], Awaitable[None]]
    ) -> None:
        self._changes = FactorChanges(second_factors) if second_factors else None
        self._write = write

    async def challenge(self, username: str, purpose: str) -> dict[str, Any]:
        """What a security key is asked. NotAllowed where the site has none."""
        return await asyncio.to_thread(self._asked().challenge, username, purpose)

    async def held(self, ticket: Secret) -> Held:
        """What whoever has the ticket has. NotAllowed where it is none of ours."""
        return await asyncio.to_thread(self._asked().held, ticket)

    async def offer_key(self, ticket: Secret) -> dict[str, Any]:
        """What the browser makes a new security key with."""
        return await asyncio.to_thread(self._asked().offer_key, ticket)

    async def add_key(self, ticket: Secret, name: str, attestation: Secret, source: str) -> Enrolled:
        """Have a security key count, and the recovery codes that come with a first one."""
        record = Record(event=Event.ENROLMENT, outcome=Outcome.ERROR, source=source, factor=_KEY)
        return await self._do(record, ticket, partial(self._asked().add_key, ticket, name, attestation))

    async def remove(self, ticket: Secret, what: str, source: str) -> Held:
        """Forget a security key, or the app."""
        factor = _APP if what == _APP else _KEY
        record = Record(event=Event.FACTOR_REMOVAL, outcome=Outcome.ERROR, source=source, factor=factor)
        return await self._do(record, ticket, partial(self._asked().remove, ticket, what))

    async def renew_codes(self, ticket: Secret, source: str) -> Enrolled:
        """New recovery codes."""
        record = Record(event=Event.ENROLMENT, outcome=Outcome.ERROR, source=source, factor=_CODES)
        return await self._do(record, ticket, partial(self._asked().renew_codes, ticket))

    async def _do(self, record: Record, ticket: Secret, change: Callable[[], _Changed]) -> _Changed:
        try:
            changed = await asyncio.to_thread(change)
        except Exception as error:
            owner = await asyncio.to_thread(self._asked().owner, ticket)
            await self._write(failed(replace(record, user=owner), error))
            raise
        await self._write(replace(record, user=changed.account, outcome=Outcome.GRANTED))
        return changed

    def _asked(self) -> FactorChanges:
        if self._changes is None:
            raise NotAllowed("Second factors are not asked for here.")
        return self._changes


def login_purpose(fingerprint: str) -> str:
    """What a challenge at a login is bound to: the key that the login is to be for."""
    return f"login {fingerprint}"


def _purpose(ticket: Secret) -> str:
    return f"enrolment {hashlib.sha256(ticket.reveal().encode()).hexdigest()}"
