"""Reads `signer.toml` strictly: every fault is named, and an unknown key names the nearest valid one."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hpchub.audit import AuditLog
from hpchub.core.certificate import PLAIN_PRINCIPAL, is_principal_form
from hpchub.core.slugs import is_safe_account_name
from hpchub.core.toml_table import Table, load_table
from hpchub.core.units import parse_time, render_time
from hpchub.local_api.metrics import LoopbackAddress, read_metrics_listen
from hpchub.logs import LogFormat
from hpchub.signer.callers import Callers, read_callers
from hpchub.signer.factor_key import FACTOR_KEY
from hpchub.signer.factor_settings import FactorSettings, Required, read_second_factor
from hpchub.signer.guessing import GuessLimits
from hpchub.signer.issuer_settings import CaSettings, read_ca
from hpchub.signer.kerberos_proof import KerberosSettings, read_kerberos
from hpchub.signer.ldap_settings import LdapSettings, read_ldap
from hpchub.signer.oidc_settings import OidcSettings, read_oidc
from hpchub.signer.policy import Policy, TerminalPolicy

_LIFETIME_S = (5 * 60, 15 * 60)
_CEILING_S = (15 * 60, 7 * 24 * 3600)
_TERMINAL_S = (15 * 60, 24 * 3600)
_ADDRESS = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?", re.ASCII)
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


class ProofKind(StrEnum):
    """How people prove who they are."""

    PASSWORD_FILE = "password-file"  # noqa: S105  the name of a method
    PAM = "pam"
    LDAP = "ldap"
    KERBEROS = "kerberos"
    OIDC = "oidc"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofSettings:
    """`file` belongs to `password-file`, `service` to `pam`; the others have settings of their own."""

    kind: ProofKind
    file: Path | None = None
    service: str = ""
    ldap: LdapSettings | None = None
    kerberos: KerberosSettings | None = None
    oidc: OidcSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerSettings:
    """One `signer.toml`, checked. Relative paths count from the file's own folder."""

    socket: Path
    state_dir: Path
    audit_log: Path
    policy: Policy
    proof: ProofSettings
    guessing: GuessLimits = field(default_factory=GuessLimits)
    second_factor: FactorSettings = field(default_factory=FactorSettings)
    metrics_listen: LoopbackAddress | None = None
    log_format: LogFormat = LogFormat.TEXT
    audit_rotate_mb: int = 0
    audit_syslog: Path | None = None
    krl_file: Path | None = None
    callers: Callers = field(default_factory=Callers)
    ca: CaSettings = field(default_factory=CaSettings)

    @property
    def factor_key(self) -> Path:
        """The file with the key of the second factors."""
        return self.second_factor.key_file or self.state_dir / FACTOR_KEY


def load_settings(path: Path) -> SignerSettings:
    """The settings in a file. ConfigError lists every fault in it."""
    folder = path.absolute().parent
    return load_table(path, lambda top: _read(top, folder), f"The signer's settings {path.name} are wrong:")


def open_audit_log(settings: SignerSettings) -> AuditLog:
    """The signer's log, for whichever process writes to it."""
    return AuditLog(
        settings.audit_log, rotate_bytes=settings.audit_rotate_mb * 1024**2, syslog=settings.audit_syslog
    )


def _read(top: Table, folder: Path) -> SignerSettings | None:
    socket = folder / top.text("socket")
    state_dir = folder / top.text("state_dir")
    audit_log = folder / top.text("audit_log")
    lifetime_s = top.amount("certificate_lifetime", _time_within(*_LIFETIME_S), 10 * 60)
    ceiling_s = top.amount("login_ceiling", _time_within(*_CEILING_S), 12 * 3600)
    sources = _read_sources(top)
    metrics_listen = read_metrics_listen(top)
    log_format = top.choice("log_format", LogFormat, LogFormat.TEXT)
    query_accounts = _read_query_accounts(top)
    principals = _read_principals(top)
    terminal = _read_terminal(top.table("terminal"), principals) if top.has("terminal") else None
    guessing = _read_guessing(top.table("guessing"))
    second_factor = read_second_factor(top.table("second_factor"), folder)
    callers = read_callers(top, folder)
    audit_rotate_mb = top.integer("audit_rotate_mb", 0, low=0, high=100_000)
    audit_syslog = folder / top.text("audit_syslog") if top.has("audit_syslog") else None
    krl_file = folder / top.text("krl_file") if top.has("krl_file") else None
    ca = read_ca(top.table("ca"), folder)
    if not top.has("proof"):
        top.fault("proof", "is missing: write [proof] with kind")
        top.finish()
        return None
    proof = _read_proof(top.table("proof"), folder)
    if proof.oidc is not None and second_factor.required is not Required.NONE:
        top.fault(
            "second_factor.required", "is the OpenID provider's to ask for: write acr_values in [proof]"
        )
    top.finish()
    if not sources or not lifetime_s or not ceiling_s:
        return None
    return SignerSettings(
        socket=socket,
        state_dir=state_dir,
        audit_log=audit_log,
        policy=Policy(
            certificate_lifetime_s=lifetime_s,
            login_ceiling_s=ceiling_s,
            source_addresses=sources,
            query_accounts=query_accounts,
            principals=principals,
            terminal=terminal,
        ),
        proof=proof,
        guessing=guessing,
        second_factor=second_factor,
        metrics_listen=metrics_listen,
        log_format=log_format,
        audit_rotate_mb=audit_rotate_mb,
        audit_syslog=audit_syslog,
        krl_file=krl_file,
        callers=callers,
        ca=ca,
    )


def _read_sources(top: Table) -> tuple[str, ...]:
    """Networks in the form sshd wants; not empty, and none that is everywhere."""
    if not top.has("source_addresses"):
        top.fault("source_addresses", "is missing: write the bridge's own addresses")
        return ()
    return _read_networks(top, "a certificate could then be used from anywhere")


def _read_networks(table: Table, if_empty: str) -> tuple[str, ...]:
    texts = table.texts("source_addresses", _ADDRESS)
    networks = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            table.fault("source_addresses", str(error))
            continue
        if not network.prefixlen:
            table.fault("source_addresses", f"{text} is every address there is")
        networks.append(str(network))
    if not texts:
        table.fault("source_addresses", f"is empty: {if_empty}")
    return tuple(networks)


def _read_terminal(table: Table, principals: tuple[str, ...]) -> TerminalPolicy:
    """Left out, `source_addresses` is from anywhere, and `principal` the first of them."""
    principal = table.text("principal", principals[0])
    if principal not in principals:
        table.fault("principal", f"{principal!r} is not among principals, which must have it too")
    policy = TerminalPolicy(
        lifetime_s=table.amount("lifetime", _time_within(*_TERMINAL_S), 8 * 3600),
        port_forwarding=table.boolean("port_forwarding", True),
        source_addresses=_read_networks(table, "leave it out, where from anywhere is meant")
        if table.has("source_addresses")
        else (),
        principal=principal,
    )
    table.finish()
    return policy


def _read_query_accounts(top: Table) -> tuple[str, ...]:
    """Service accounts; never root or another that runs the machine."""
    named = top.texts("query_accounts", re.compile(".*", re.DOTALL))
    for name in named:
        if not is_safe_account_name(name):
            top.fault("query_accounts", f"{name!r} is no account that may have a certificate")
    return tuple(name for name in named if is_safe_account_name(name))


def _read_principals(top: Table) -> tuple[str, ...]:
    """Forms of principals; the account's own name where the site says nothing."""
    if not top.has("principals"):
        return (PLAIN_PRINCIPAL,)
    forms = top.texts("principals", re.compile(".*", re.DOTALL))
    good = tuple(form for form in forms if is_principal_form(form))
    for form in forms:
        if form not in good:
            top.fault("principals", f"{form!r} is no form: write 'hpchub:{{account}}', with one of : @ +")
    if not forms:
        top.fault("principals", "is empty: no certificate could be made")
    return good or (PLAIN_PRINCIPAL,)


def _read_proof(table: Table, folder: Path) -> ProofSettings:
    kind = table.choice("kind", ProofKind)
    if kind is ProofKind.PASSWORD_FILE:
        proof = ProofSettings(kind=kind, file=folder / table.text("file"))
    elif kind is ProofKind.LDAP:
        proof = ProofSettings(kind=kind, ldap=read_ldap(table, folder))
    elif kind is ProofKind.KERBEROS:
        proof = ProofSettings(kind=kind, kerberos=read_kerberos(table, folder))
    elif kind is ProofKind.OIDC:
        proof = ProofSettings(kind=kind, oidc=read_oidc(table, folder))
    else:
        proof = ProofSettings(kind=kind, service=table.text("service", pattern=_SERVICE))
    table.finish()
    return proof


def _read_guessing(table: Table) -> GuessLimits:
    """Every number is optional. None can be so large that nothing would be limited."""
    usual = GuessLimits()
    longest = table.amount("longest_wait", _time_within(60, 24 * 3600), usual.longest_wait_s)
    first = table.amount("first_wait", _time_within(1, 3600), usual.first_wait_s)
    if first > longest:
        table.fault("first_wait", "is longer than longest_wait")
    limits = GuessLimits(
        free_tries=table.integer("free_tries", usual.free_tries, low=1, high=20),
        first_wait_s=first,
        longest_wait_s=longest,
        per_account=table.integer("per_account", usual.per_account, low=5, high=100),
        per_account_known=table.integer("per_account_known", usual.per_account_known, low=5, high=200),
        per_address=table.integer("per_address", usual.per_address, low=10, high=100_000),
        window_s=table.amount("window", _time_within(10 * 60, 24 * 3600), usual.window_s),
        forget_after_s=table.amount(
            "forget_after", _time_within(24 * 3600, 30 * 24 * 3600), usual.forget_after_s
        ),
        known_for_s=table.amount("known_for", _time_within(24 * 3600, 400 * 24 * 3600), usual.known_for_s),
    )
    table.finish()
    return limits


def _time_within(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        seconds = parse_time(text)
        if not low <= seconds <= high:
            raise ValueError(f"{text} is not from {render_time(low)} to {render_time(high)}")
        return seconds

    return parse
