"""Security keys and passkeys (WebAuthn): offered, kept, and checked with the `fido2` library.

Lives inside the transactions of `SecondFactors`. What a browser sends is JSON as WebAuthn's `toJSON` has it.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from fido2.cose import ES256, CoseKey
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    AuthenticatorData,
    PublicKeyCredentialDescriptor,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from hpchub.core.secret import Secret
from hpchub.errors import InvalidRequest
from hpchub.signer.challenges import CHALLENGE_S, Challenges
from hpchub.signer.factor_key import FactorKey
from hpchub.signer.webauthn_settings import WebAuthnSettings

MOST_KEYS = 8
LONGEST_NAME = 40

# ES256, EdDSA, RS256: what keys make (https://www.iana.org/assignments/cose).
_ALGORITHMS = (-7, -8, -257)
_COSE_ALGORITHM = 3

# Lengths of credential ids that real keys have: a stand-in of another length would be known for one.
_ID_LENGTHS = (16, 20, 32, 48, 64)

# All that the library meets in what is no WebAuthn response.
_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    AssertionError,
    NotImplementedError,
    RecursionError,
    OverflowError,
    struct.error,
    UnsupportedAlgorithm,
)


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A security key, as its owner knows it. Unix seconds; `used_at` is 0 where it has not been used."""

    key_id: str
    name: str
    added_at: float
    used_at: float


@dataclass(frozen=True, slots=True)
class Pressed:
    """What an assertion was worth: the key and its new count, or why it was worth nothing."""

    key_id: str = ""
    sign_count: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    key_id: str
    credential: AttestedCredentialData = field(repr=False)
    sign_count: int = 0


class SecurityKeys:
    """The keys of all accounts. `account` is a name as `account_key` has it; `purpose` binds a challenge."""

    def __init__(
        self, key: FactorKey, settings: WebAuthnSettings, issuer: str, now: Callable[[], float]
    ) -> None:
        self._key = key
        self._now = now
        self._challenges = Challenges(key, now)
        self._verification = UserVerificationRequirement(settings.user_verification.value)
        origins = frozenset(settings.origins)
        self._server = Fido2Server(
            PublicKeyCredentialRpEntity(id=settings.rp_id, name=issuer),
            attestation=None,
            verify_origin=lambda origin: origin in origins,
        )
        self._server.timeout = CHALLENGE_S * 1000  # type: ignore[assignment]  # None is its default, not its type
        self._server.allowed_algorithms = [
            PublicKeyCredentialParameters(type=PublicKeyCredentialType.PUBLIC_KEY, alg=algorithm)
            for algorithm in _ALGORITHMS
        ]
        nobodys = ec.generate_private_key(ec.SECP256R1()).public_key()
        self._stand_in_key: CoseKey = ES256.from_cryptography_key(nobodys)  # type: ignore[no-untyped-call]

    # -- logging in -----------------------------------------------------------------------------

    def ask(self, connection: sqlite3.Connection, account: str, purpose: str) -> dict[str, Any]:
        """What the browser is to ask of the person's keys.

        Always about as many keys, most of which nobody has: the list does not tell who has one.
        """
        ids = [row.credential.credential_id for row in self._rows(connection, account)]
        ids += [self._stand_in_id(account, number) for number in range(len(ids), MOST_KEYS)]
        options, _ = self._server.authenticate_begin(
            [_descriptor(one) for one in sorted(ids)],
            user_verification=self._verification,
            challenge=self._challenges.make(account, purpose),
        )
        return dict(options.public_key)

    def check(self, connection: sqlite3.Connection, account: str, assertion: Secret, purpose: str) -> Pressed:
        """What an assertion is worth. Its challenge is spent by this, whatever comes of it."""
        try:
            response = AuthenticationResponse.from_dict(_object(assertion))
            challenge = response.response.client_data.challenge
        except _UNREADABLE:
            return Pressed(reason="no assertion that can be read")
        if why := self._challenges.spend(connection, challenge, account, purpose):
            return Pressed(reason=why)
        rows = self._rows(connection, account)
        found = next((row for row in rows if row.credential.credential_id == response.raw_id), None)
        try:
            # As much work for a key that is not there.
            credential = found.credential if found else self._stand_in(response.raw_id)
            self._server.authenticate_complete(self._state(challenge), [credential], response)
            if response.response.client_data.cross_origin:
                raise ValueError("asked for within another site's page")
        except _UNREADABLE as error:
            return Pressed(reason=f"security key: {_said(error)}")
        if found is None:
            return Pressed(reason="security key: Unknown credential ID.")
        count = response.response.authenticator_data.counter
        if (count or found.sign_count) and count <= found.sign_count:
            return Pressed(reason="security key: its count went back, as a copy's would")
        return Pressed(found.key_id, count)

    def use(self, connection: sqlite3.Connection, pressed: Pressed) -> None:
        """Note that a key has let somebody in."""
        connection.execute(
            "UPDATE security_keys SET sign_count = ?, used_at = ? WHERE key_id = ?",
            (pressed.sign_count, self._now(), pressed.key_id),
        )

    # -- keeping --------------------------------------------------------------------------------

    def offer(self, connection: sqlite3.Connection, account: str, name: str, purpose: str) -> dict[str, Any]:
        """What the browser is to make a new key with; one that is there already is not made again."""
        user = PublicKeyCredentialUserEntity(
            id=self._key.tag(f"user\0{account}".encode()), name=name, display_name=name
        )
        options, _ = self._server.register_begin(
            user,
            [_descriptor(row.credential.credential_id) for row in self._rows(connection, account)],
            resident_key_requirement=ResidentKeyRequirement.DISCOURAGED,
            user_verification=self._verification,
            challenge=self._challenges.make(account, purpose),
        )
        return dict(options.public_key)

    def add(
        self, connection: sqlite3.Connection, account: str, name: str, attestation: Secret, purpose: str
    ) -> None:
        """Have a new key count.

        Raises:
            InvalidRequest: It is no answer to our offer, is there already, or is one too many.
        """
        auth_data = self._registered(connection, account, attestation, purpose)
        credential = auth_data.credential_data
        rows = self._rows(connection, account)
        if credential is None or credential.public_key.get(_COSE_ALGORITHM) not in _ALGORITHMS:
            raise InvalidRequest("That security key is of a kind that cannot be used here.")
        if any(row.credential.credential_id == credential.credential_id for row in rows):
            raise InvalidRequest("That security key is there already.")
        if len(rows) >= MOST_KEYS:
            raise InvalidRequest(f"There may be {MOST_KEYS} security keys.", "Remove one first.")
        connection.execute(
            "INSERT INTO security_keys VALUES (?, ?, ?, ?, ?, ?, 0)",
            (secrets.token_hex(8), account, name, self._key.seal(account, bytes(credential)),
             auth_data.counter, self._now()),
        )  # fmt: skip

    def _registered(
        self, connection: sqlite3.Connection, account: str, attestation: Secret, purpose: str
    ) -> AuthenticatorData:
        try:
            response = RegistrationResponse.from_dict(_object(attestation))
            challenge = response.response.client_data.challenge
        except _UNREADABLE:
            raise InvalidRequest("That is no answer of a security key.") from None
        if why := self._challenges.spend(connection, challenge, account, purpose):
            raise InvalidRequest("The security key took too long.", "Try again.") from ValueError(why)
        try:
            made = self._server.register_complete(self._state(challenge), response)
            if response.response.client_data.cross_origin:
                raise ValueError("asked for within another site's page")
        except _UNREADABLE as error:
            raise InvalidRequest("That security key cannot be used here.") from ValueError(_said(error))
        return made

    def _rows(self, connection: sqlite3.Connection, account: str) -> list[_Row]:
        rows = connection.execute(
            "SELECT key_id, credential, sign_count FROM security_keys WHERE account = ? ORDER BY added_at",
            (account,),
        )
        return [
            _Row(key_id, AttestedCredentialData(self._key.open(account, sealed)), count)
            for key_id, sealed, count in rows.fetchall()
        ]

    def _state(self, challenge: bytes) -> dict[str, Any]:
        """What the library wants to know of the question; it would have us keep it meanwhile."""
        _, state = self._server.authenticate_begin(challenge=challenge, user_verification=self._verification)
        return dict(state)

    def _stand_in_id(self, account: str, number: int) -> bytes:
        """An id that nobody has, the same each time, as long as some real ones are."""
        tags = [self._key.tag(f"id\0{account}\0{number}\0{part}".encode()) for part in range(2)]
        return b"".join(tags)[: _ID_LENGTHS[tags[0][0] % len(_ID_LENGTHS)]]

    def _stand_in(self, credential_id: bytes) -> AttestedCredentialData:
        return AttestedCredentialData.create(b"\0" * 16, credential_id, self._stand_in_key)


def keys_of(connection: sqlite3.Connection, account: str) -> list[HeldKey]:
    """The account's keys; it needs no key of ours."""
    rows = connection.execute(
        "SELECT key_id, name, added_at, used_at FROM security_keys WHERE account = ? ORDER BY added_at",
        (account,),
    )
    return [HeldKey(*row) for row in rows.fetchall()]


def remove_keys(connection: sqlite3.Connection, account: str, key_id: str = "") -> int:
    """Forget one of an account's keys, or all; how many that were."""
    done = connection.execute(
        "DELETE FROM security_keys WHERE account = ?1 AND (?2 = '' OR key_id = ?2)", (account, key_id)
    )
    return done.rowcount


def is_assertion(code: Secret) -> bool:
    """Whether what came as a code is the answer of a security key."""
    return code.reveal().lstrip().startswith("{")


def _descriptor(credential_id: bytes) -> PublicKeyCredentialDescriptor:
    return PublicKeyCredentialDescriptor(type=PublicKeyCredentialType.PUBLIC_KEY, id=credential_id)


def _object(text: Secret) -> Mapping[str, Any]:
    body = json.loads(text.reveal())
    if not isinstance(body, dict):
        raise ValueError("no object")  # noqa: TRY004  one kind for the caller to catch
    return body


def _said(error: Exception) -> str:
    return str(error) if type(error) is ValueError else f"unreadable ({type(error).__name__})"
