"""Asks a Kerberos KDC for a ticket with the person's password, and the KDC to prove that it is the site's.

Without the second half whoever can answer in the KDC's place says yes to any password of their choice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpchub.core.toml_table import Table
from hpchub.errors import ConfigError, RemoteError
from hpchub.private_files import read_private_file
from hpchub.signer.child import Answer, ask_child
from hpchub.signer.server_proof import ServerProof

_REALM = re.compile(r"[A-Z0-9][A-Za-z0-9.-]{0,254}", re.ASCII)
_HTTP_SERVICE = re.compile(r"HTTP/[A-Za-z0-9.-]+", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9.-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpnegoSettings:
    """`service` is what browsers get tickets for, `HTTP/` and the hub's host name; its key is in `keytab`."""

    service: str
    keytab: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class KerberosSettings:
    """`service` is the principal, without realm, whose key is in `keytab`: the KDC has to know it."""

    realm: str
    service: str
    keytab: Path
    krb5_conf: Path = Path("/etc/krb5.conf")
    lower_case_only: bool = False
    timeout_s: int = 15
    spnego: SpnegoSettings | None = None


def read_kerberos(table: Table, folder: Path) -> KerberosSettings:
    """The settings in a table; faults are noted in it. Relative paths count from `folder`."""
    return KerberosSettings(
        realm=table.text("realm", pattern=_REALM),
        service=table.text("service", pattern=_SERVICE),
        keytab=folder / table.text("keytab"),
        krb5_conf=folder / table.text("krb5_conf", "/etc/krb5.conf"),
        lower_case_only=table.boolean("lower_case_only", False),
        timeout_s=table.integer("timeout_s", 15, low=1, high=30),
        spnego=_read_spnego(table.table("spnego"), folder) if table.has("spnego") else None,
    )


def _read_spnego(table: Table, folder: Path) -> SpnegoSettings:
    settings = SpnegoSettings(
        service=table.text("service", pattern=_HTTP_SERVICE), keytab=folder / table.text("keytab")
    )
    table.finish()
    return settings


class KerberosProof(ServerProof):
    """Each check is a process of its own, in whose memory alone the tickets are."""

    name = "Kerberos"

    def __init__(self, settings: KerberosSettings, refusal_s: float = 1.0) -> None:
        super().__init__(refusal_s)
        self.settings = settings

    def check(self) -> None:
        """The keytab is private and has the service's key; the KDC is not asked. ConfigError otherwise."""
        read_private_file(self.settings.keytab)
        answer = self._ask("", "")
        if not answer.ok:
            raise ConfigError(f"Kerberos cannot be used: {answer.said}.")

    def _ask(self, username: str, password: str) -> Answer:
        child = Path(__file__).with_name("kerberos_child.py")
        settings = self.settings
        question = {
            "realm": settings.realm,
            "service": settings.service,
            "keytab": str(settings.keytab),
            "krb5_conf": str(settings.krb5_conf),
            "username": username,
            "password": password,
        }
        try:
            answer = ask_child(child, question, settings.timeout_s)
        except RemoteError:
            return Answer(None, "no answer in time")
        if answer.ok and settings.lower_case_only and username != username.lower():
            return Answer(False, "a name with capitals")
        return answer
