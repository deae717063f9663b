"""A person's app: what the tests of the second factor type codes with."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP


def code_of(seed: str, at: float) -> str:
    """The code that an app shows at a time, for a seed as the page shows it."""
    key = base64.b32decode(seed.replace(" ", ""))
    return TOTP(key, 6, SHA1(), 30).generate(at).decode()  # noqa: S303  as an app does
