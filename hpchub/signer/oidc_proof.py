"""Has the site's OpenID provider say who somebody is, and verifies what it says.

The hub leads the browser to the provider and brings back an id_token; it is not believed. The token must be
signed by the provider, be made for us, and hold a nonce that names the key to be certified.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from hpchub.core.login_nonce import login_nonce
from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, SiteError
from hpchub.signer.oidc_accounts import NoAccount, load_subjects, make_account_rule
from hpchub.signer.oidc_keys import Provider, ProviderKeys, UnknownKey, tls_context
from hpchub.signer.oidc_settings import OidcSettings
from hpchub.signer.oidc_token import BadToken, read_claims, read_header
from hpchub.signer.proofs import Accepted, Refused
from hpchub.signer.used_logins import UsedLogins

_FACTOR = "oidc"
_STRONG_FACTOR = "oidc+acr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What the hub brings back from the provider, and the browser's address as the hub reports it."""

    id_token: Secret
    salt: str
    source: str


class OidcProof:
    """A `Proof` that takes no passwords. Belongs to one event loop."""

    workers = 1
    refusal_s = 0.0

    def __init__(self, settings: OidcSettings) -> None:
        """ConfigError where the rule for accounts cannot be used."""
        self.settings = settings
        self._keys = ProviderKeys(settings)
        self._account_of = make_account_rule(settings)

    def verify(self, username: str, password: Secret) -> Accepted | Refused:
        """Refused, whoever asks: passwords are for the provider alone."""
        return Refused("OpenID: passwords are not taken here")

    def check(self) -> None:
        """The files that the settings name can be used; the provider is not asked. ConfigError otherwise."""
        tls_context(self.settings)
        if self.settings.account_file is not None:
            load_subjects(self.settings.account_file)

    def account_problem(self, account: str) -> str:
        """Whether `account_file` still has the account; without that file nothing is known against anybody.

        Raises:
            SiteError: The file is wrong.
        """
        if self.settings.account_file is None:
            return ""
        try:
            accounts = load_subjects(self.settings.account_file).values()
        except ConfigError as error:
            raise SiteError("Accounts cannot be checked now.", "Tell the site's staff.") from error
        return "" if account in accounts else "OpenID: account_file has the account no more"

    async def provider(self) -> Provider:
        """What the provider says of itself. RemoteError where it cannot be told."""
        return await self._keys.provider()

    async def verify_token(self, presented: Presented, public_key: str) -> Accepted | Refused:
        """Whose account an id_token proves, for the login with that key.

        Raises:
            RemoteError: The provider's keys cannot be had.
            SiteError: The account cannot be looked up.
        """
        token = presented.id_token.reveal()
        try:
            nonce = login_nonce(public_key, presented.salt)
            header = read_header(token)
            key = await self._keys.key(header.kid, header.algorithm)
            claims = read_claims(token, key, header.algorithm, self.settings, nonce, time.time())
        except (ValueError, UnknownKey, BadToken) as error:
            return Refused(f"OpenID: {error}")
        try:
            account = await asyncio.to_thread(self._account_of, claims)
        except NoAccount as error:  # who it is, the provider has proven
            return Refused(f"OpenID: {error} (subject {claims['sub']!r})")
        return Accepted(account, _STRONG_FACTOR if self.settings.acr_values else _FACTOR)


class OidcLogins:
    """The proof, and which logins it was used for."""

    def __init__(self, proof: OidcProof, used: UsedLogins) -> None:
        self.proof = proof
        self._used = used

    async def request(self) -> dict[str, Any]:
        """What the hub is to ask the provider for, and where. RemoteError where it cannot be told."""
        settings, provider = self.proof.settings, await self.proof.provider()
        return {
            "issuer": settings.issuer,
            "client_id": settings.client_id,
            "scope": " ".join(settings.scopes),
            "acr_values": " ".join(settings.acr_values),
            "max_age": settings.max_age_s,
            "authorization_endpoint": provider.authorization_endpoint,
            "token_endpoint": provider.token_endpoint,
            "auth_methods": list(provider.auth_methods),
            "names_itself": provider.names_itself,
        }

    async def judge(self, presented: Presented, public_key: str) -> Accepted | Refused:
        """As `OidcProof.verify_token`, once for each login. SiteError also where that cannot be kept."""
        verdict = await self.proof.verify_token(presented, public_key)
        if isinstance(verdict, Accepted) and not await asyncio.to_thread(
            self._used.use, login_nonce(public_key, presented.salt)
        ):
            return Refused(f"OpenID: that login was used before, by {verdict.account}")
        return verdict
