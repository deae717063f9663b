"""A stand-in for HashiCorp Vault's SSH secrets engine, which no package registry carries.

It answers as Vault's sources say (builtin/logical/ssh/path_issue_sign.go and path_fetch.go, as of 2026):
which fields of a request count, where a role's defaults take their place, what is refused and in which
form. Certificates are made by asyncssh, so not by the code that is tested.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import asyncssh
from aiohttp import web

TOKEN = "hvs.canary-vault-token"

_PERMITS = {
    "permit-X11-forwarding": "permit_x11_forwarding",
    "permit-agent-forwarding": "permit_agent_forwarding",
    "permit-port-forwarding": "permit_port_forwarding",
    "permit-pty": "permit_pty",
    "permit-user-rc": "permit_user_rc",
}


@dataclass
class Role:
    """The fields of a role that matter here, with Vault's own defaults but for who is allowed."""

    allowed_users: str = "*"
    allowed_extensions: str = "permit-port-forwarding"
    allowed_critical_options: str = "source-address,force-command"
    default_extensions: dict[str, str] = field(default_factory=dict)
    default_critical_options: dict[str, str] = field(default_factory=dict)
    allow_user_key_ids: bool = True
    max_ttl: int = 900
    not_before_duration: int = 30


@dataclass
class Vault:
    """One mount `ssh` with a role `hpchub`. `status` other than 200 is what every call gets."""

    key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    role: Role = field(default_factory=Role)
    ttl_factor: int = 1
    status: int = 200
    delay_s: float = 0
    asked: list[dict[str, Any]] = field(default_factory=list)

    @property
    def public_key(self) -> str:
        return self.key.export_public_key("openssh").decode().strip()

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/ssh/sign/hpchub", self._sign)
        app.router.add_get("/v1/ssh/public_key", self._public_key)
        return app

    async def _public_key(self, _request: web.Request) -> web.Response:
        return web.Response(text=self.public_key + "\n")

    async def _sign(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.delay_s)
        if self.status != 200:
            headers = {"Location": "https://127.0.0.1:1/"} if self.status == 307 else {}
            return web.json_response({"errors": ["Vault is sealed"]}, status=self.status, headers=headers)
        if request.headers.get("X-Vault-Token") != TOKEN:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        body = await request.json()
        self.asked.append(body)
        try:
            serial = secrets.randbits(64)
            signed = self._certificate(body, serial).export_certificate("openssh").decode()
        except ValueError as error:
            return web.json_response({"errors": [str(error)]}, status=400)
        data = {"serial_number": f"{serial:x}", "signed_key": signed}
        return web.json_response(
            {
                "request_id": "f01f82a4-2f54-1b4a-3a1c-2a4f4b3f6f5e",
                "lease_id": "",
                "renewable": False,
                "lease_duration": 0,
                "data": data,
                "wrap_info": None,
                "warnings": None,
                "auth": None,
            }
        )

    def _certificate(self, body: dict[str, Any], serial: int) -> Any:
        role, now = self.role, int(time.time())
        if body.get("key_id") and not role.allow_user_key_ids:
            raise ValueError("setting key_id is not allowed by role")
        ttl = int(body["ttl"].removesuffix("s"))
        if ttl > role.max_ttl:
            raise ValueError(f"ttl is larger than maximum allowed {role.max_ttl}")
        users = body["valid_principals"].split(",")
        if role.allowed_users != "*" and not set(users) <= set(role.allowed_users.split(",")):
            raise ValueError(f"{users[0]} is not a valid value for valid_principals")
        options = body.get("critical_options") or role.default_critical_options
        allowed = role.allowed_critical_options.split(",")
        if role.allowed_critical_options and not set(options) <= set(allowed):
            raise ValueError(f"critical options not on allowed list: [{' '.join(options)}]")
        extensions = body.get("extensions") or {}
        allowed = role.allowed_extensions.split(",")
        if role.allowed_extensions != "*" and not set(extensions) <= set(allowed):
            raise ValueError(f"extensions [{' '.join(extensions)}] are not on allowed list")
        extensions = extensions or role.default_extensions
        source = options.get("source-address")
        return self.key.generate_user_certificate(
            asyncssh.import_public_key(body["public_key"]),
            key_id=body["key_id"],
            serial=serial,
            principals=users,
            valid_after=now - role.not_before_duration,
            valid_before=now + ttl * self.ttl_factor,
            force_command=options.get("force-command"),
            source_address=source.split(",") if source else None,
            **permits(extensions),
        )


def permits(extensions: Iterable[str]) -> dict[str, Any]:
    """Arguments of asyncssh's for exactly these extensions."""
    return {argument: name in set(extensions) for name, argument in _PERMITS.items()}
