"""Speaks to the signer. Errors come out as the classes that they were on the other side."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import UnexpectedOutput
from hpchub.local_api.client import call

_Value = TypeVar("_Value")

_NO_CODE = Secret("")
_TIMEOUT_S = 10.0
_LOGIN_TIMEOUT_S = 60.0  # a PAM stack may ask a directory server far away, and others may be in the queue


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedLogin:
    """What a login earned: worthless without the private key of the public key it was made for."""

    username: str
    grant: Secret
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedFactor:
    """What an app needs to become somebody's second factor, as a QR code's text and to be typed."""

    username: str
    uri: Secret
    seed: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One line in OpenSSH's form, and what sshd will log of it. Public, like the key inside.

    `expires_at` is when the login behind it ends; until then another can be had. Unix seconds.
    `principal` is what the certificate calls the account.
    """

    certificate: str = field(repr=False)
    serial: int
    key_id: str
    account: str
    principal: str
    valid_before: int
    expires_at: int


class SignerClient:
    """The signer behind a unix socket. Holds no connection, so there is nothing to close.

    Every call raises ProcessAway where no signer answers in time, and whatever error of
    `hpchub.errors` the signer answers with.
    """

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = Path(socket_path)

    async def health(self) -> None:
        """Return where the signer answers."""
        await self._call("GET", "/v1/health")

    async def ready(self) -> None:
        """Return where the signer could grant something; RemoteError with what is missing otherwise."""
        await self._call("GET", "/v1/ready")

    async def ca_public_key(self) -> str:
        """One line: the key that clusters trust."""
        return _field(await self._call("GET", "/v1/ca"), "public_key", str)

    async def principals(self) -> tuple[str, ...]:
        """The forms that principals of certificates may have, the usual one first."""
        return tuple(map(str, _field(await self._call("GET", "/v1/ca"), "principals", list)))

    async def grant(
        self, username: str, password: Secret, public_key: str, source: str, code: Secret = _NO_CODE
    ) -> GrantedLogin:
        """Log in.

        Args:
            username: As it was typed.
            password: Likewise.
            public_key: The key that the grant is to be for.
            source: The browser's address, for the limits on guessing and the audit log.
            code: The second factor's, or a recovery code; empty where the person typed none.

        Raises:
            EnrolmentRequired: The password is right, and a second factor has to be set up first.
            NotAllowed: Wrong password or code, unknown, locked or unsafe name: always the same words.
        """
        body = {
            "username": username,
            "password": password.reveal(),
            "code": code.reveal(),
            "public_key": public_key,
            "source": source,
        }
        answer = await self._call("POST", "/v1/grants", body, _LOGIN_TIMEOUT_S)
        return GrantedLogin(
            username=_field(answer, "username", str),
            grant=Secret(_field(answer, "grant", str)),
            expires_at=_field(answer, "expires_at", int),
        )

    async def asks_for_codes(self) -> bool:
        """Whether anybody may need a code to log in."""
        return _field(await self._call("GET", "/v1/second-factor"), "asked", bool)

    async def offer(self, ticket: Secret) -> OfferedFactor:
        """What the person's app needs. NotAllowed where the ticket has expired."""
        answer = await self._call("POST", "/v1/second-factor/offers", {"ticket": ticket.reveal()})
        return OfferedFactor(
            username=_field(answer, "username", str),
            uri=Secret(_field(answer, "uri", str)),
            seed=Secret(_field(answer, "seed", str)),
        )

    async def enrol(self, ticket: Secret, code: Secret, source: str) -> tuple[Secret, ...]:
        """Have the second factor count; its recovery codes, which nobody can show again.

        Raises:
            InvalidRequest: That is not the app's code.
            NotAllowed: The ticket has expired.
        """
        body = {"ticket": ticket.reveal(), "code": code.reveal(), "source": source}
        answer = await self._call("POST", "/v1/second-factor/enrolments", body)
        return tuple(Secret(str(one)) for one in _field(answer, "recovery_codes", list))

    async def certificate(
        self, grant: Secret, public_key: str, profile: Profile, form: str = ""
    ) -> Certificate:
        """Mint a certificate for the key that the grant was made for.

        `form` is that of its principal: one of the signer's `principals`, or empty for the first of them.

        Raises:
            NotAllowed: The login has ended, or the grant is for another key.
            InvalidRequest: The form is not one of the signer's.
        """
        body = {
            "grant": grant.reveal(), "public_key": public_key, "profile": profile.value, "principal": form
        }  # fmt: skip
        return _certificate(await self._call("POST", "/v1/certificates", body))

    async def query_certificate(self, account: str, public_key: str, form: str = "") -> Certificate:
        """Mint a certificate with which a service account asks for the states of jobs.

        Raises:
            NotAllowed: The signer's settings do not name that account.
        """
        body = {"account": account, "public_key": public_key, "principal": form}
        return _certificate(await self._call("POST", "/v1/query-certificates", body))

    async def log_out(self, grant: Secret) -> None:
        """Have nothing minted for this grant any more. NotAllowed where it is not one of the signer's."""
        await self._call("POST", "/v1/logout", {"grant": grant.reveal()})

    async def ends(self, after: int) -> tuple[dict[str, str], int]:
        """Fingerprints of keys whose login has ended early, each with why; and the `after` of next time."""
        answer = await self._call("GET", f"/v1/ends?after={after}")
        rows = _field(answer, "ends", list)
        return {str(row["fingerprint"]): str(row["why"]) for row in rows}, _field(answer, "next", int)

    async def disconnected(self, user: str, why: str, connections: int) -> None:
        """Have it recorded that connections were closed."""
        body = {"user": user, "why": why, "connections": connections}
        await self._call("POST", "/v1/disconnected", body)

    async def krl(self) -> bytes:
        """OpenSSH's key revocation list, as it is now."""
        try:
            return base64.b64decode(_field(await self._call("GET", "/v1/krl"), "krl", str), validate=True)
        except ValueError as error:
            raise UnexpectedOutput("the signer", "a revocation list that cannot be read") from error

    async def revoke(self, target: str, *, reason: str, by: str) -> dict[str, Any]:
        """Take back what a user, serial, key id or key names; what was taken, as processes.md has it."""
        return await self._call("POST", "/v1/revocations", {"target": target, "reason": reason, "by": by})

    async def undo_revocation(self, target: str, *, reason: str, by: str) -> None:
        """Let a user log in again, or a key be used again. InvalidRequest where that cannot be."""
        await self._call("POST", "/v1/revocations/undo", {"target": target, "reason": reason, "by": by})

    async def sessions(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Logins that have not ended, and users who may not log in, each since when in Unix seconds."""
        answer = await self._call("GET", "/v1/sessions")
        return _field(answer, "sessions", list), _field(answer, "revoked", dict)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = _TIMEOUT_S
    ) -> dict[str, Any]:
        return await call(self.socket_path, "signer", method, path, body, timeout_s=timeout_s)


def _certificate(answer: Mapping[str, Any]) -> Certificate:
    return Certificate(
        certificate=_field(answer, "certificate", str),
        serial=_field(answer, "serial", int),
        key_id=_field(answer, "key_id", str),
        account=_field(answer, "account", str),
        principal=_field(answer, "principal", str),
        valid_before=_field(answer, "valid_before", int),
        expires_at=_field(answer, "expires_at", int),
    )


def _field(answer: Mapping[str, Any], name: str, kind: type[_Value]) -> _Value:
    value = answer.get(name)
    if not isinstance(value, kind):
        raise UnexpectedOutput("the signer", f"an answer without {name}")
    return value
