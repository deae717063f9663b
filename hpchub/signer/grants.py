"""A grant on the wire: a JWT signed with a key of the signer's own, so that it survives a restart.

One algorithm, and every claim required: PyJWT checks `aud`, `iss` and `exp` only where it is told to.
"""

from __future__ import annotations

import hashlib
import time

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hpchub.core.secret import Secret
from hpchub.errors import NotAllowed
from hpchub.signer.policy import Grant

_ALGORITHM = "EdDSA"
_ISSUER = "hpchub-signer"
_AUDIENCE = "hpchub-signer/certificates"
# A login brings its grant every few minutes. What is kept is a digest and what it stood for, no token.
_MOST_KNOWN = 10_000

_CLAIMS = ("exp", "iat", "aud", "iss", "sub", "jti", "key", "factor")


class GrantKey:
    """Writes grants and reads back those that it wrote."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self._public_key = private_key.public_key()
        self._known: dict[bytes, Grant] = {}

    def render(self, grant: Grant) -> Secret:
        """The grant as a signed token."""
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": grant.account,
            "iat": grant.issued,
            "exp": grant.ceiling,
            "jti": grant.grant_id,
            "key": grant.fingerprint,
            "factor": grant.factor,
        }
        return Secret(jwt.encode(claims, self._private_key, algorithm=_ALGORITHM))

    def parse(self, token: Secret) -> Grant:
        """The grant in a token of our own that has not reached its ceiling.

        Raises:
            NotAllowed: It is anything else; the cause names the true reason.
        """
        digest = hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).digest()
        grant = self._known.get(digest)
        if grant is None:
            grant = self._verify(token)
            while len(self._known) >= _MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[digest] = grant
        if grant.ceiling <= time.time():  # its signature stays good, and it does not
            raise _ended()
        return grant

    def _verify(self, token: Secret) -> Grant:
        try:
            claims = jwt.decode(
                token.reveal(),
                self._public_key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                issuer=_ISSUER,
                options={"require": list(_CLAIMS), "strict_aud": True},
            )
            return Grant(
                account=claims["sub"],
                fingerprint=claims["key"],
                factor=claims["factor"],
                issued=claims["iat"],
                ceiling=claims["exp"],
                grant_id=claims["jti"],
            )
        except jwt.ExpiredSignatureError as error:
            raise _ended() from error
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise NotAllowed("This login is not one of ours.", "Log in again.") from error


def _ended() -> NotAllowed:
    return NotAllowed("Your login has ended.", "Log in again.")
