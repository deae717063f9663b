"""The settings of `[second_factor.webauthn]`: for which pages a security key counts, and what it asks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from hpchub.core.toml_table import Table

_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*", re.ASCII)
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(?::[1-9][0-9]{0,4})?", re.ASCII)


class UserVerification(StrEnum):
    """Whether the key itself asks for a PIN or a fingerprint (WebAuthn, section 5.8.6)."""

    REQUIRED = "required"
    PREFERRED = "preferred"
    DISCOURAGED = "discouraged"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAuthnSettings:
    """`rp_id` is the domain that keys are made for; `origins` are the pages that may use them."""

    rp_id: str
    origins: tuple[str, ...]
    user_verification: UserVerification = UserVerification.PREFERRED


def read_webauthn(table: Table) -> WebAuthnSettings | None:
    """The settings; None, and faults noted, where they will not do. `origins` may be left out."""
    rp_id = table.text("rp_id", pattern=_DOMAIN)
    origins = table.texts("origins", _ORIGIN) or (f"https://{rp_id}",)
    verification = table.choice("user_verification", UserVerification, UserVerification.PREFERRED)
    for origin in origins:
        parts = urlsplit(origin)
        host = parts.hostname or ""
        if rp_id and host != rp_id and not host.endswith(f".{rp_id}"):
            table.fault("origins", f"{origin} is not within {rp_id}")
        if parts.scheme == "http" and host != "localhost":
            table.fault("origins", f"{origin}: browsers have security keys only over https, or on localhost")
    table.finish()
    if not rp_id:
        return None
    return WebAuthnSettings(rp_id=rp_id, origins=origins, user_verification=verification)
