"""Time-based one-time passwords (RFC 6238) and recovery codes. Pure: time and randomness are arguments.

SHA-1, six digits and 30 seconds, because that is all that the common apps understand.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP
from cryptography.hazmat.primitives.twofactor.totp import TOTP

SEED_BYTES = 20  # RFC 4226, section 4, R6: 160 bits
RECOVERY_CODES = 10

_DIGITS = 6
_STEP_S = 30
_DRIFT_STEPS = 1  # RFC 6238, section 5.2: at most one step for the way here
_RECOVERY_BYTES = 10
_TOTP_CODE = re.compile(r"[0-9]{6}", re.ASCII)
_RECOVERY_CODE = re.compile(r"[A-Z2-7]{16}", re.ASCII)
_BLANKS = str.maketrans("", "", " -")
_NO_CODE = "000000"
_NO_RECOVERY_CODE = "A" * 16


def matching_step(seed: bytes, code: str, now: float) -> int | None:
    """The time step whose code this is, one step before or after now allowed; None where there is none.

    Every step is computed and compared, in constant time, whatever was typed.
    """
    typed = code.translate(_BLANKS)
    is_code = _TOTP_CODE.fullmatch(typed) is not None
    given = (typed if is_code else _NO_CODE).encode("ascii")
    hotp = HOTP(seed, _DIGITS, SHA1())  # noqa: S303  as an HMAC it holds: RFC 6194, section 3.3
    present = max(int(now) // _STEP_S, _DRIFT_STEPS)  # a clock in 1970 is no reason to fail
    found = None
    for step in range(present - _DRIFT_STEPS, present + _DRIFT_STEPS + 1):
        if bytes_eq(hotp.generate(step), given) and is_code:
            found = step
    return found


def provisioning_uri(seed: bytes, account: str, issuer: str) -> str:
    """What the QR code says to an app."""
    code = TOTP(seed, _DIGITS, SHA1(), _STEP_S)  # noqa: S303  as RFC 6238 and every app have it
    return code.get_provisioning_uri(account, issuer)


def render_seed(seed: bytes) -> str:
    """The seed for those who type it: base32 in groups of four."""
    return _grouped(base64.b32encode(seed).decode("ascii"), " ")


def new_recovery_codes(random: Callable[[int], bytes]) -> list[str]:
    """Codes of 80 random bits, for people to keep on paper."""
    codes = (base64.b32encode(random(_RECOVERY_BYTES)).decode("ascii") for _ in range(RECOVERY_CODES))
    return [_grouped(code, "-") for code in codes]


def normal_recovery_code(code: str) -> tuple[str, bool]:
    """The code without blanks and in capitals, and whether it can be one; a stand-in where it cannot."""
    typed = code.translate(_BLANKS).upper()
    if _RECOVERY_CODE.fullmatch(typed):
        return typed, True
    return _NO_RECOVERY_CODE, False


def _grouped(text: str, between: str) -> str:
    return between.join(text[start : start + 4] for start in range(0, len(text), 4))
