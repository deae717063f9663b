"""Who may act on the clusters right now: a key in the agent's memory, and a signer's grant.

A session begins with a login and ends at the grant's ceiling or at logout. It outlives the bridge: the
agent keeps its key, the store its grant.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncssh
from asyncssh.public_key import SSHOpenSSHCertificate

from hpchub.bridge.keeper import STORE_FAILURES, reading
from hpchub.bridge.metrics import BridgeMetrics
from hpchub.bridge.store import SessionRecord, Store
from hpchub.core.certificate import Profile, principal_of
from hpchub.core.secret import Secret
from hpchub.core.terminal import terminal_request
from hpchub.errors import ConfigError, HpchubError, InvalidRequest, NoSession, NotAllowed
from hpchub.signer.answers import Certificate
from hpchub.signer.client import SignerClient
from hpchub.ssh.credentials import Credential
from hpchub.ssh.key_agent import KeyAgent

log = logging.getLogger(__name__)

KEY_LIFETIME_S = 300
_MOST_UNCLAIMED_KEYS = 1000

# A certificate this close to its end is not used for a new connection: clocks differ.
_MARGIN_S = 60

_LOG_IN_AGAIN = "Log in again: your session on the cluster has ended."


@dataclass(slots=True)
class _Session:
    public_key: asyncssh.SSHKey = field(repr=False)
    grant: Secret
    expires_at: float = 0
    # By what they are for, and the form of the principal.
    credentials: dict[tuple[Profile, str], Credential] = field(default_factory=dict, repr=False)
    minting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def fingerprint(self) -> str:
        """Of its key, as the signer has it."""
        return self.public_key.get_fingerprint()

    def record(self, user: str) -> SessionRecord:
        """What the store keeps of it."""
        return SessionRecord(
            user=user, public_key=_text(self.public_key), grant=self.grant, expires_at=self.expires_at
        )


class _Unclaimed(NamedTuple):
    """A key for whoever is logging in. `source` is the address they come from."""

    key: asyncssh.SSHKey
    made_at: float
    source: str


class Sessions:
    """Sessions by user. Implements the pool's `CredentialSource`."""

    def __init__(
        self,
        signer: SignerClient,
        agent: KeyAgent,
        store: Store,
        *,
        now: Callable[[], float] = time.time,
        metrics: BridgeMetrics | None = None,
    ) -> None:
        self._signer = signer
        self._agent = agent
        self._store = store
        self._metrics = metrics or BridgeMetrics()
        self._now = now
        self._unclaimed: dict[str, _Unclaimed] = {}
        self._sessions: dict[str, _Session] = {}
        # Users whose login has not reached its ceiling, and yet the signer mints no more for it.
        self.refused: set[str] = set()
        # Keys of sessions that are being opened, and whether they were ended meanwhile.
        self._opening: dict[str, bool] = {}
        # Keys of earlier logins, whose connections may still be open: whose, and until when.
        self._earlier: dict[str, tuple[str, float]] = {}

    async def restore(self) -> None:
        """Take up the sessions of the bridge before, as far as the agent still holds their keys."""
        held = await self._agent.held()
        with reading():
            sessions = await asyncio.to_thread(self._store.sessions)
        for kept in sessions:
            public_key = asyncssh.import_public_key(kept.public_key)
            if kept.expires_at > self._now() and public_key.public_data in held:
                self._sessions[kept.user] = _Session(public_key, kept.grant, kept.expires_at)

    def users(self) -> list[str]:
        """Everybody who has a session."""
        return [user for user, session in self._sessions.items() if session.expires_at > self._now()]

    def new_key(self, source: str = "") -> tuple[str, str]:
        """The id and the public key, in OpenSSH's form, of a new ed25519 key.

        `source` is the address that asks: a flood of logins from there pushes out its own oldest keys.
        """
        now = self._now()
        self._unclaimed = {
            key_id: entry for key_id, entry in self._unclaimed.items() if now - entry.made_at < KEY_LIFETIME_S
        }
        while len(self._unclaimed) >= _MOST_UNCLAIMED_KEYS:
            ((most, _),) = Counter(entry.source for entry in self._unclaimed.values()).most_common(1)
            self._unclaimed.pop(
                next(key_id for key_id, entry in self._unclaimed.items() if entry.source == most)
            )
        key = asyncssh.generate_private_key("ssh-ed25519")
        key_id = secrets.token_hex(16)
        self._unclaimed[key_id] = _Unclaimed(key, now, source)
        return key_id, _text(key)

    async def open(self, user: str, key_id: str, grant: Secret) -> float:
        """Begin a session; its end in Unix seconds.

        The grant is tried at once: what it yields must name this user and no one else.

        Raises:
            InvalidRequest: There is no such unclaimed key.
            NotAllowed: The grant is not for this key, or not for this user; or it was taken back just now.
            ProcessAway: The signer or the agent does not answer.
        """
        entry = self._unclaimed.pop(key_id, None)
        if entry is None or self._now() - entry.made_at >= KEY_LIFETIME_S:
            raise InvalidRequest("The login took too long, or was used already.", "Log in again.")
        session = _Session(entry.key.convert_to_public(), grant)
        self._opening[session.fingerprint] = False
        try:
            session.credentials[Profile.CONTROL, ""] = await self._mint(session, user, Profile.CONTROL, "")
            await self._agent.add(entry.key, math.ceil(session.expires_at - self._now()))
        finally:
            ended = self._opening.pop(session.fingerprint)
        if ended:
            await self._agent.remove(session.public_key)
            raise _no_session(user)
        # The agent forgets the key before it at its ceiling: a handshake may be under way with it.
        earlier, self._sessions[user] = self._sessions.get(user), session
        try:
            await asyncio.to_thread(self._store.save_session, session.record(user))
        except STORE_FAILURES as error:  # a session that the next bridge does not know is still one
            log.error("session.unwritable user=%s reason=%s", user, type(error).__name__)
        if earlier is not None:
            self._earlier[earlier.fingerprint] = (user, earlier.expires_at)
            await self._tell_signer(user, earlier)
        return session.expires_at

    def expires_at(self, user: str) -> float:
        """When a user's session ends, in Unix seconds. NotAllowed where there is none."""
        return self._session(user).expires_at

    async def close(self, user: str) -> None:
        """End a session, here and at the signer. Its connections are closed by `Ends`."""
        session = self._sessions.get(user)
        try:
            await self.forget(user)
        finally:
            if session is not None:
                await self._tell_signer(user, session)

    async def forget(self, user: str) -> None:
        """Drop a session that has ended elsewhere, its key with it: nothing can be made of it from now on."""
        session = self._sessions.pop(user, None)
        if session is None:
            return
        try:
            await self._agent.remove(session.public_key)
        finally:
            try:
                await asyncio.to_thread(self._store.drop_session, user)
            except STORE_FAILURES as error:  # without its key it is nothing that could be taken up again
                log.error("session.unwritable user=%s reason=%s", user, type(error).__name__)

    def owner_of(self, fingerprint: str) -> tuple[str, bool] | None:
        """Whose key that is, and whether it is that of their session now; None where it is nobody's."""
        for user, session in self._sessions.items():
            if session.fingerprint == fingerprint:
                return user, True
        self._earlier = {key: entry for key, entry in self._earlier.items() if entry[1] > self._now()}
        entry = self._earlier.get(fingerprint)
        return (entry[0], False) if entry else None

    def end_opening(self, fingerprint: str) -> None:
        """That key's login has ended: a session that is being opened with it must not begin."""
        if fingerprint in self._opening:
            self._opening[fingerprint] = True

    def expired(self) -> set[str]:
        """Users whose session has reached its ceiling."""
        return {user for user, session in self._sessions.items() if session.expires_at <= self._now()}

    async def _tell_signer(self, user: str, session: _Session) -> None:
        """The key is gone, or soon will be; the grant is then worth nothing at all."""
        try:
            await self._signer.log_out(session.grant)
        except HpchubError as error:
            log.warning("logout.untold user=%s error=%s", user, error)

    async def credential(self, user: str, profile: Profile, form: str = "") -> Credential:
        """The session's key with a certificate that is good for a while yet.

        Raises:
            NotAllowed: There is no session, or it has reached its ceiling.
            RemoteError: The signer cannot be asked.
        """
        session = self._session(user)
        async with session.minting:
            credential = session.credentials.get((profile, form))
            if credential is None or credential.valid_before - self._now() < _MARGIN_S:
                try:
                    credential = await self._mint(session, user, profile, form)
                except NotAllowed as error:
                    self.refused.add(user)
                    raise NoSession(error.message, error.hint) from error
                session.credentials[profile, form] = credential
            if self._sessions.get(user) is not session:  # it has ended while we waited
                raise _no_session(user)
            return credential

    async def terminal_certificate(self, user: str, public_key: str, source: str) -> Certificate:
        """A certificate for the key of the user's own terminal. The session's key vouches for the request.

        Raises:
            NotAllowed: There is no session, it has reached its ceiling, or the site gives none.
            RemoteError: Signer or agent cannot be asked.
        """
        session = self._session(user)
        signed = terminal_request(session.grant.reveal(), public_key)
        made = await self._signer.terminal_certificate(
            session.grant,
            login_key=_text(session.public_key),
            signature=await self._agent.sign(session.public_key.public_data, signed),
            public_key=public_key,
            source=source,
        )
        certificate = asyncssh.import_certificate(made.certificate)
        if (
            not isinstance(certificate, SSHOpenSSHCertificate)
            or made.account != user
            or certificate.principals != [made.principal]
        ):
            raise NotAllowed(f"That login was not {user}'s.", "Log in again.")
        return made

    def _session(self, user: str) -> _Session:
        session = self._sessions.get(user)
        if session is None or session.expires_at <= self._now():  # kept: clocks that jump also jump back
            raise _no_session(user)
        return session

    async def _mint(self, session: _Session, user: str, profile: Profile, form: str) -> Credential:
        with self._metrics.minting():
            public_key = _text(session.public_key)
            try:
                minted = await self._signer.certificate(session.grant, public_key, profile, form)
            except InvalidRequest as error:  # the form: all else that we send is the signer's own
                raise ConfigError(error.message, error.hint) from error
        certificate = asyncssh.import_certificate(minted.certificate)
        wanted = [principal_of(form, user) if form else minted.principal]
        if (
            not isinstance(certificate, SSHOpenSSHCertificate)
            or minted.account != user
            or certificate.principals != wanted
        ):
            raise NotAllowed(f"That login was not {user}'s.", "Log in again.")
        session.expires_at = minted.expires_at
        return Credential(self._agent.pair(session.public_key), certificate, minted.valid_before)


def _no_session(user: str) -> NoSession:
    return NoSession(f"{user} has no live session.", _LOG_IN_AGAIN)


def _text(public_key: asyncssh.SSHKey) -> str:
    return public_key.export_public_key().decode().strip()
