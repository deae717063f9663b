"""The people: they log in, press start, watch the progress, and keep a page open. Works on any JupyterHub."""

from __future__ import annotations

import re
import secrets
import time

from hpchub.core.secret import Secret
from hpchub.signer.certificates import parse_public_key
from hpchub.signer.keys import Keys
from hpchub.signer.policy import Policy, plan_grant

_XSRF = re.compile(r'name="_xsrf"[^>]*value="([^"]*)"')
_START_LIMIT_S = 600.0
_BATCH = 200


def grant_for(keys: Keys, policy: Policy, user: str, public_key: str) -> Secret:
    """What a login would earn, without the password: argon2 for thousands would be all that is measured."""
    grant = plan_grant(
        policy,
        account=user,
        factor="password",
        fingerprint=parse_public_key(public_key).fingerprint,
        now=int(time.time()),
        grant_id=secrets.token_hex(16),
    )
    return keys.grant.render(grant)
