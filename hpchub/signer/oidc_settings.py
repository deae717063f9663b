"""The table `[proof]` of `kind = "oidc"`: which provider, what it must say, and whose account that is."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hpchub.core.toml_table import Table
from hpchub.core.units import parse_time, render_time

_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?", re.ASCII)
_CLIENT = re.compile(r"[!-~]{1,256}", re.ASCII)
_CLAIM = re.compile(r"[!-~]{1,256}", re.ASCII)
_SCOPE = re.compile(r"[!#-\[\]-~]{1,128}", re.ASCII)  # RFC 6749, section 3.3
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MAX_AGE_S = (60, 7 * 24 * 3600)
_USUAL_MAX_AGE_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """Exactly one of `account_claim`, `account_file` and `account_function` says whose account it is.

    `max_age_s` is 0 where it does not matter when the person showed the provider who they are;
    `min_uid_number` where accounts are not looked up on the signer's machine.
    """

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ("openid", "profile")
    other_audiences: tuple[str, ...] = ()
    ca_file: Path | None = None
    acr_values: tuple[str, ...] = ()
    max_age_s: int = 0
    account_claim: str = ""
    account_suffix: str = ""
    account_pattern: re.Pattern[str] | None = None
    account_file: Path | None = None
    account_function: str = ""
    min_uid_number: int = 0
    groups_claim: str = ""
    groups: tuple[str, ...] = ()
    timeout_s: int = 5


def read_oidc(table: Table, folder: Path) -> OidcSettings:
    """The settings in a table; faults are noted in it. Relative paths count from `folder`."""
    acr_values = table.texts("acr_values", _CLAIM)
    scopes = table.texts("scopes", _SCOPE) or ("openid", "profile")
    if "openid" not in scopes:
        table.fault("scopes", "must hold openid: without it no provider sends an id_token")
    issuer = table.text("issuer", pattern=_URL)
    if issuer and not is_safe_url(issuer):
        table.fault("issuer", "must begin with https:// (http:// will do on this machine's own loopback)")
    groups = table.texts("groups", re.compile(r"[^\x00-\x1f]{1,256}"))
    if bool(groups) != table.has("groups_claim"):
        table.fault("groups", "and groups_claim say something only together")
    settings = OidcSettings(
        issuer=issuer,
        client_id=table.text("client_id", pattern=_CLIENT),
        scopes=scopes,
        other_audiences=table.texts("other_audiences", _CLIENT),
        ca_file=folder / table.text("ca_file") if table.has("ca_file") else None,
        acr_values=acr_values,
        max_age_s=table.amount("max_age", _max_age, _USUAL_MAX_AGE_S if acr_values else 0),
        account_claim=table.text("account_claim", pattern=_CLAIM) if table.has("account_claim") else "",
        account_suffix=table.text("account_suffix") if table.has("account_suffix") else "",
        account_pattern=_read_pattern(table),
        account_file=folder / table.text("account_file") if table.has("account_file") else None,
        account_function=table.text("account_function", pattern=_FUNCTION)
        if table.has("account_function")
        else "",
        min_uid_number=table.integer("min_uid_number", 0, low=1, high=2**32 - 1),
        groups_claim=table.text("groups_claim", pattern=_CLAIM) if table.has("groups_claim") else "",
        groups=groups,
        timeout_s=table.integer("timeout_s", 5, low=1, high=15),
    )
    _note_faults(table, settings)
    return settings


def is_safe_url(url: str) -> bool:
    """Whether nobody on the way can change what comes from there: TLS, or this machine's loopback."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment:
        return False
    if parts.scheme == "https":
        return True
    try:
        return parts.scheme == "http" and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _note_faults(table: Table, settings: OidcSettings) -> None:
    ways = [settings.account_claim, settings.account_file, settings.account_function]
    if sum(bool(way) for way in ways) != 1:
        table.fault("account_claim", "or account_file or account_function: write exactly one of the three")
    for key, value in (
        ("account_suffix", settings.account_suffix),
        ("account_pattern", settings.account_pattern),
    ):
        if value and not settings.account_claim:
            table.fault(key, "says nothing without account_claim")


def _read_pattern(table: Table) -> re.Pattern[str] | None:
    if not table.has("account_pattern"):
        return None
    text = table.text("account_pattern")
    try:
        return re.compile(text, re.ASCII)
    except re.error as error:
        table.fault("account_pattern", f"is no regular expression: {error}")
        return None


def _max_age(text: str) -> int:
    seconds = parse_time(text)
    low, high = _MAX_AGE_S
    if not low <= seconds <= high:
        raise ValueError(f"{text} is not from {render_time(low)} to {render_time(high)}")
    return seconds
