"""What the bridge logs in with: a person's session, or a site's service account for queries (ADR 0008)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import asyncssh

from hpchub.core.certificate import Profile
from hpchub.errors import ConfigError, InvalidRequest, NotAllowed
from hpchub.signer.client import SignerClient
from hpchub.ssh.credentials import Credential, CredentialSource

# As for sessions: clocks differ.
_MARGIN_S = 60


class WithServiceAccounts:
    """Credentials of people and of service accounts. Implements the pool's `CredentialSource`.

    The service accounts share one key of this process; each has its own certificate, which can do
    nothing but ask for the states of jobs.
    """

    def __init__(
        self, people: CredentialSource, signer: SignerClient, *, now: Callable[[], float] = time.time
    ) -> None:
        self._people = people
        self._signer = signer
        self._now = now
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._minted: dict[tuple[str, str], Credential] = {}
        self._minting = asyncio.Lock()

    async def credential(self, user: str, profile: Profile, form: str = "") -> Credential:
        """A person's own, or for queries the service account's.

        Raises:
            NotAllowed: The person has no session.
            ConfigError: The signer does not know the service account.
            RemoteError: The signer cannot be asked.
        """
        if profile is not Profile.QUERY:
            return await self._people.credential(user, profile, form)
        async with self._minting:
            credential = self._minted.get((user, form))
            if credential is None or credential.valid_before - self._now() < _MARGIN_S:
                credential = self._minted[user, form] = await self._mint(user, form)
            return credential

    async def forget(self, fingerprint: str) -> set[str]:
        """Use that key no more, if it is the one of this process; the accounts that may be connected with it.

        An account that the signer still has may go on, with a new key.
        """
        async with self._minting:
            if self._key.get_fingerprint() != fingerprint:
                return set()
            accounts = {account for account, _ in self._minted}
            self._key = asyncssh.generate_private_key("ssh-ed25519")
            self._minted.clear()
            return accounts

    async def _mint(self, account: str, form: str) -> Credential:
        public_key = self._key.export_public_key().decode().strip()
        try:
            minted = await self._signer.query_certificate(account, public_key, form)
        except InvalidRequest as error:
            raise ConfigError(error.message, error.hint) from error
        except NotAllowed as error:
            raise ConfigError(
                f"The signer lets {account} ask for no job's state.",
                "Ask the site's staff: query_accounts in signer.toml must name the cluster's status_account.",
            ) from error
        certificate = asyncssh.import_certificate(minted.certificate)
        return Credential(key=self._key, certificate=certificate, valid_before=minted.valid_before)
