"""HashiCorp Vault's SSH secrets engine (or OpenBao's) as the authority.

Vault picks serial and times itself. It takes a role's own options wherever a request names none, and a
loose role lets others through; so every option is sent, and what comes back is compared with the plan.
https://developer.hashicorp.com/vault/api-docs/secret/ssh#sign-ssh-key
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from hpchub.core.secret import Secret
from hpchub.errors import ConfigError, SiteError
from hpchub.private_files import read_private_file
from hpchub.signer.certificate_bytes import Contents
from hpchub.signer.certificates import PublicKey
from hpchub.signer.issuer_http import Https

# Vault counts from its own clock. Where that is ahead by no more than this, the end is not past the planned.
_CLOCK_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """Where it is, and what signs there. `ca_file` None: whoever the machine itself trusts."""

    address: str
    mount: str
    role: str
    token_file: Path
    namespace: str = ""
    ca_file: Path | None = None


class VaultIssuer:
    """One role of one mount. The token is read anew each time: Vault's own agent renews it in its file."""

    adjusts = True
    own_key = None

    def __init__(self, settings: VaultSettings, public_key: str) -> None:
        self.public_key = public_key
        self._settings = settings
        self._server = Https("The certificate authority (Vault)", settings.address, settings.ca_file)

    async def sign(self, public_key: PublicKey, contents: Contents) -> str:
        """Vault's certificate."""
        body = {
            "public_key": public_key.line,
            "cert_type": contents.kind.name.lower(),
            "key_id": contents.key_id,
            "valid_principals": ",".join(contents.principals),  # account names, which hold no comma
            "ttl": f"{max(1, contents.valid_before - int(time.time()) - _CLOCK_S)}s",
            "critical_options": dict(contents.critical_options),
            "extensions": dict.fromkeys(contents.extensions, ""),
        }
        path = f"/v1/{self._settings.mount}/sign/{self._settings.role}"
        answer = await self._server.call("POST", path, body, self._headers())
        return self._server.parse(answer, "data", "signed_key").strip()

    async def check(self) -> None:
        """Whether Vault answers, and with the key that is trusted. Says nothing of token and role."""
        line = await self._server.call("GET", f"/v1/{self._settings.mount}/public_key")
        if line.split()[:2] != self.public_key.split():
            raise SiteError("The certificate authority (Vault) has another key than public_key says.")

    def _headers(self) -> dict[str, Secret]:
        try:
            token = read_private_file(self._settings.token_file).decode("ascii").strip()
        except UnicodeDecodeError:
            token = ""
        if not token.isprintable() or not token:
            raise ConfigError(f"{self._settings.token_file} holds no token.")
        headers = {"X-Vault-Token": Secret(token), "X-Vault-Request": Secret("true")}
        if self._settings.namespace:
            headers["X-Vault-Namespace"] = Secret(self._settings.namespace)
        return headers
