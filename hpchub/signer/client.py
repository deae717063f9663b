"""Speaks to the signer. Errors come out as the classes that they were on the other side."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpchub.core.certificate import Profile
from hpchub.core.secret import Secret
from hpchub.errors import UnexpectedOutput, from_wire
from hpchub.local_api.client import call
from hpchub.local_api.tls import TlsPeer
from hpchub.logs import correlated, correlation_id
from hpchub.signer.answers import (
    Certificate,
    GrantedLogin,
    HeldFactors,
    Holdings,
    OfferedFactor,
    OidcRequest,
    field_of,
    read_certificate,
    read_codes,
    read_held,
    read_login,
)
from hpchub.signer.together import Answer, Together

LARGEST_BATCH = 64  # certificates in one call

_NO_CODE = Secret("")
_TIMEOUT_S = 10.0
_OIDC_TIMEOUT_S = 40.0  # two questions to the provider
_FACTOR = "/v1/second-factor"
_LOGIN_TIMEOUT_S = 60.0  # a PAM stack may ask a directory server far away, and others may be in the queue


class SignerClient:
    """The signer behind a unix socket, or on another host. Holds no connection: there is nothing to close.

    Every call raises ProcessAway where no signer answers in time, and whatever error of
    `hpchub.errors` the signer answers with.
    """

    def __init__(self, where: Path | TlsPeer) -> None:
        self.socket_path = where
        self._together = Together(self._certificates, LARGEST_BATCH)

    async def health(self) -> None:
        """Return where the signer answers."""
        await self._call("GET", "/v1/health")

    async def ready(self) -> None:
        """Return where the signer could grant something; RemoteError with what is missing otherwise."""
        await self._call("GET", "/v1/ready")

    async def ca_public_key(self) -> str:
        """One line: the key that clusters trust."""
        return field_of(await self._call("GET", "/v1/ca"), "public_key", str)

    async def principals(self) -> tuple[str, ...]:
        """The forms that principals of certificates may have, the usual one first."""
        return tuple(map(str, field_of(await self._call("GET", "/v1/ca"), "principals", list)))

    async def grant(
        self, username: str, password: Secret, public_key: str, source: str, code: Secret = _NO_CODE
    ) -> GrantedLogin:
        """Log in.

        Args:
            username: As it was typed.
            password: Likewise.
            public_key: The key that the grant is to be for.
            source: The browser's address, for the limits on guessing and the audit log.
            code: The second factor's, or a recovery code, or what a security key answered to `challenge`,
                as JSON; empty where the person gave none.

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
        return read_login(await self._call("POST", "/v1/grants", body, _LOGIN_TIMEOUT_S))

    async def oidc_request(self) -> OidcRequest:
        """What to ask the site's OpenID provider for.

        Raises:
            NotAllowed: The site has none.
            RemoteError: The provider does not answer the signer.
        """
        answer = await self._call("GET", "/v1/oidc", timeout_s=_OIDC_TIMEOUT_S)
        return OidcRequest(
            issuer=field_of(answer, "issuer", str),
            client_id=field_of(answer, "client_id", str),
            scope=field_of(answer, "scope", str),
            acr_values=field_of(answer, "acr_values", str),
            max_age_s=field_of(answer, "max_age", int),
            authorization_endpoint=field_of(answer, "authorization_endpoint", str),
            token_endpoint=field_of(answer, "token_endpoint", str),
            auth_methods=tuple(str(one) for one in field_of(answer, "auth_methods", list)),
            names_itself=field_of(answer, "names_itself", bool),
        )

    async def grant_by_id_token(
        self, id_token: Secret, salt: str, public_key: str, source: str
    ) -> GrantedLogin:
        """Log in with what the site's OpenID provider says.

        Args:
            id_token: Its nonce must be `login_nonce(public_key, salt)`.
            salt: As `new_salt` made it for this login.
            public_key: The key that the grant is to be for.
            source: The browser's address, for the audit log.

        Raises:
            NotAllowed: The token is not one for this login, was used before, or names nobody who may.
            RemoteError: The provider's keys cannot be had.
        """
        body = {"id_token": id_token.reveal(), "salt": salt, "public_key": public_key, "source": source}
        return read_login(await self._call("POST", "/v1/oidc/grants", body, _LOGIN_TIMEOUT_S))

    async def grant_by_ticket(self, token: Secret, public_key: str, source: str) -> GrantedLogin:
        """Log in with a Kerberos ticket.

        Args:
            token: What the browser sent behind `Authorization: Negotiate`, as it came.
            public_key: The key that the grant is to be for.
            source: The browser's address, for the audit log.

        Raises:
            NotAllowed: The ticket is none for this hub, was presented before, or names nobody who may; or
                its owner has to give a second factor.
        """
        body = {"token": token.reveal(), "public_key": public_key, "source": source}
        return read_login(await self._call("POST", "/v1/spnego/grants", body, _LOGIN_TIMEOUT_S))

    async def factor_kinds(self) -> tuple[str, ...]:
        """The kinds of second factor that anybody may need to log in; empty where none is asked for."""
        answer = await self._call("GET", "/v1/second-factor")
        return tuple(str(kind) for kind in field_of(answer, "kinds", list))

    async def challenge(self, username: str, public_key: str = "") -> str:
        """What to ask somebody's security keys, as JSON for the browser.

        Args:
            username: As it was typed; nobody learns from the answer whether there is such a person.
            public_key: The key that the login is to be for; empty for `ticket`.
        """
        body = {"username": username, "public_key": public_key}
        return field_of(await self._call("POST", f"{_FACTOR}/challenges", body), "options", str)

    async def ticket(self, username: str, password: Secret, code: Secret, source: str) -> Secret:
        """A ticket with which the person changes their second factors. NotAllowed in the words of a login."""
        body = {
            "username": username,
            "password": password.reveal(),
            "code": code.reveal(),
            "source": source,
        }
        answer = await self._call("POST", f"{_FACTOR}/tickets", body, _LOGIN_TIMEOUT_S)
        return Secret(field_of(answer, "ticket", str))

    async def held_factors(self, ticket: Secret) -> HeldFactors:
        """What the person has."""
        return read_held(await self._call("POST", f"{_FACTOR}/held", {"ticket": ticket.reveal()}))

    async def offer_key(self, ticket: Secret) -> str:
        """What the browser makes a new security key with, as JSON."""
        answer = await self._call("POST", f"{_FACTOR}/key-offers", {"ticket": ticket.reveal()})
        return field_of(answer, "options", str)

    async def add_key(
        self, ticket: Secret, name: str, attestation: Secret, source: str
    ) -> tuple[Secret, ...]:
        """Have a security key count; recovery codes, where it is the person's first second factor.

        Raises:
            InvalidRequest: It, or its name, will not do.
        """
        body = {
            "ticket": ticket.reveal(),
            "name": name,
            "attestation": attestation.reveal(),
            "source": source,
        }
        return read_codes(await self._call("POST", f"{_FACTOR}/keys", body))

    async def remove_factor(self, ticket: Secret, what: str, source: str) -> HeldFactors:
        """Forget a security key, by its id, or the app, `totp`; InvalidRequest where it is needed."""
        body = {"ticket": ticket.reveal(), "what": what, "source": source}
        return read_held(await self._call("POST", f"{_FACTOR}/removals", body))

    async def renew_recovery_codes(self, ticket: Secret, source: str) -> tuple[Secret, ...]:
        """New recovery codes; those from before count no more."""
        body = {"ticket": ticket.reveal(), "source": source}
        return read_codes(await self._call("POST", f"{_FACTOR}/recovery-codes", body))

    async def offer(self, ticket: Secret) -> OfferedFactor:
        """What the person's app needs. NotAllowed where the ticket has expired."""
        answer = await self._call("POST", "/v1/second-factor/offers", {"ticket": ticket.reveal()})
        return OfferedFactor(
            username=field_of(answer, "username", str),
            uri=Secret(field_of(answer, "uri", str)),
            seed=Secret(field_of(answer, "seed", str)),
        )

    async def enrol(self, ticket: Secret, code: Secret, source: str) -> tuple[Secret, ...]:
        """Have the second factor count; its recovery codes, which nobody can show again.

        Raises:
            InvalidRequest: That is not the app's code.
            NotAllowed: The ticket has expired.
        """
        body = {"ticket": ticket.reveal(), "code": code.reveal(), "source": source}
        answer = await self._call("POST", "/v1/second-factor/enrolments", body)
        return read_codes(answer)

    async def certificate(
        self, grant: Secret, public_key: str, profile: Profile, form: str = ""
    ) -> Certificate:
        """Mint a certificate for the key that the grant was made for.

        Those that are asked for in the same moment go in one call. `form` is that of its principal: one of
        the signer's `principals`, or empty for the first of them.

        Raises:
            NotAllowed: The login has ended, or the grant is for another key.
            InvalidRequest: The form is not one of the signer's.
        """
        body = {
            "grant": grant.reveal(),
            "public_key": public_key,
            "profile": profile.value,
            "principal": form,
            "server_id": correlation_id(),
        }
        answer = await self._together.ask(body)
        if "error" in answer:
            raise from_wire(answer)
        return read_certificate(answer)

    async def query_certificate(self, account: str, public_key: str, form: str = "") -> Certificate:
        """Mint a certificate with which a service account asks for the states of jobs.

        Raises:
            NotAllowed: The signer's settings do not name that account.
        """
        body = {"account": account, "public_key": public_key, "principal": form}
        return read_certificate(await self._call("POST", "/v1/query-certificates", body))

    async def terminal_certificate(
        self, grant: Secret, *, login_key: str, signature: bytes, public_key: str, source: str
    ) -> Certificate:
        """Mint a certificate for a person's own terminal.

        Args:
            grant: The login's.
            login_key: The key that the grant was made for.
            signature: That key's, of `hpchub.core.terminal.terminal_request`.
            public_key: The terminal's.
            source: Where the terminal is.

        Raises:
            NotAllowed: The site gives none, or the login has ended.
        """
        body = {
            "grant": grant.reveal(),
            "login_key": login_key,
            "signature": base64.b64encode(signature).decode("ascii"),
            "public_key": public_key,
            "source": source,
        }
        return read_certificate(await self._call("POST", "/v1/terminals", body))

    async def terminal_holder(
        self, *, public_key: str, purpose: str, hub: str, challenge: str, signature: str
    ) -> tuple[str, int]:
        """Whose terminal has signed the challenge, and until when it holds its certificate, in Unix seconds.

        Raises:
            NotAllowed: It is no terminal's key, its login has ended, or it did not sign that.
        """
        body = {
            "public_key": public_key,
            "purpose": purpose,
            "hub": hub,
            "challenge": challenge,
            "signature": signature,
        }
        answer = await self._call("POST", "/v1/terminals/holder", body)
        return field_of(answer, "username", str), field_of(answer, "expires_at", int)

    async def log_out_terminal(self, *, public_key: str, hub: str, challenge: str, signature: str) -> None:
        """Take a terminal's certificate back. NotAllowed as `terminal_holder`."""
        body = {"public_key": public_key, "hub": hub, "challenge": challenge, "signature": signature}
        await self._call("POST", "/v1/terminals/logout", body)

    async def log_out(self, grant: Secret) -> None:
        """Have nothing minted for this grant any more. NotAllowed where it is not one of the signer's."""
        await self._call("POST", "/v1/logout", {"grant": grant.reveal()})

    async def ends(self, after: int) -> tuple[dict[str, str], int]:
        """Fingerprints of keys whose login has ended early, each with why; and the `after` of next time."""
        answer = await self._call("GET", f"/v1/ends?after={after}")
        rows = field_of(answer, "ends", list)
        return {str(row["fingerprint"]): str(row["why"]) for row in rows}, field_of(answer, "next", int)

    async def disconnected(self, user: str, why: str, connections: int) -> None:
        """Have it recorded that connections were closed."""
        body = {"user": user, "why": why, "connections": connections}
        await self._call("POST", "/v1/disconnected", body)

    async def krl(self) -> bytes:
        """OpenSSH's key revocation list, as it is now."""
        try:
            return base64.b64decode(field_of(await self._call("GET", "/v1/krl"), "krl", str), validate=True)
        except ValueError as error:
            raise UnexpectedOutput("the signer", "a revocation list that cannot be read") from error

    async def revoke(self, target: str, *, reason: str, by: str) -> dict[str, Any]:
        """Take back what a user, serial, key id or key names; what was taken, as processes.md has it."""
        return await self._call("POST", "/v1/revocations", {"target": target, "reason": reason, "by": by})

    async def undo_revocation(self, target: str, *, reason: str, by: str) -> None:
        """Let a user log in again, or a key be used again. InvalidRequest where that cannot be."""
        await self._call("POST", "/v1/revocations/undo", {"target": target, "reason": reason, "by": by})

    async def sessions(self) -> Holdings:
        """Who holds what."""
        answer = await self._call("GET", "/v1/sessions")
        return Holdings(
            logins=field_of(answer, "sessions", list),
            queries=field_of(answer, "service_accounts", list),
            revoked=field_of(answer, "revoked", dict),
        )

    async def _certificates(self, requests: Sequence[Answer]) -> Sequence[Answer]:
        if len(requests) == 1:  # in the task of nobody, so the server's id goes by hand
            (request,) = requests
            with correlated(request["server_id"]):
                body = {name: value for name, value in request.items() if name != "server_id"}
                return [await self._call("POST", "/v1/certificates", body)]
        answer = await self._call("POST", "/v1/certificate-batches", {"requests": list(requests)})
        answers = field_of(answer, "answers", list)
        if len(answers) != len(requests) or not all(isinstance(one, dict) for one in answers):
            raise UnexpectedOutput("the signer", "another number of certificates")
        return answers

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = _TIMEOUT_S
    ) -> dict[str, Any]:
        return await call(self.socket_path, "signer", method, path, body, timeout_s=timeout_s)
