"""Slurm's own tokens (auth/jwt), for slurmrestd: asked for as the person, never made with Slurm's key.

With that key anybody's token can be made, root's among them. Checked on 22.05; jwt.html of Slurm's documents.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass

from hpchub.core.command import Command, CommandResult
from hpchub.core.secret import Secret
from hpchub.errors import HpchubError, InvalidRequest, NotAllowed, SiteError, UnexpectedOutput
from hpchub.schedulers.slurm_errors import failure

LIFESPAN_S = (60, 3600)

_TOKEN = re.compile(r"SLURM_JWT=([\w-]+\.([\w-]+)\.[\w-]+)", re.ASCII)

# What scontrol says on 22.05 where a site keeps tokens from people (disable_token_creation), and where Slurm
# has none: then it gives no reason at all.
_DISABLED = "Access/permission denied"
_NO_REASON = "Error fetching token"


@dataclass(frozen=True, slots=True)
class SlurmToken:
    """A token, and its end in Unix seconds."""

    token: Secret
    expires_at: int


def token_command(lifespan_s: int, cluster: str = "") -> Command:
    """scontrol, for whoever runs it. InvalidRequest where the time is out of bounds."""
    low, high = LIFESPAN_S
    if not low <= lifespan_s <= high:
        raise InvalidRequest(
            f"A token lives for {low} to {high} seconds.", fields={"lifespan_s": "Too much."}
        )
    where = (f"--clusters={cluster}",) if cluster else ()
    return Command(argv=("scontrol", *where, "token", f"lifespan={lifespan_s}"))


def parse_token(result: CommandResult, user: str) -> SlurmToken:
    """The token, where it is that user's.

    What is said of an odd answer shows nothing of it: it might be a token.

    Raises:
        SiteError: The site has no tokens.
        NotAllowed: The site lets its people make none.
        SchedulerUnavailable: Slurm did not answer.
        UnexpectedOutput: There is neither a token of that user's nor a refusal.
    """
    match = next(filter(None, map(_TOKEN.fullmatch, result.stdout.split("\n"))), None)
    if result.exit_code != 0 or match is None:
        raise _refusal(result)
    try:
        padded = match[2] + "=" * (-len(match[2]) % 4)
        claims = json.loads(base64.urlsafe_b64decode(padded))
        owner, expires_at = claims["sun"], int(claims["exp"])
    except (ValueError, KeyError, TypeError):
        raise UnexpectedOutput("scontrol", "a token without owner and end") from None
    if owner != user:
        raise UnexpectedOutput("scontrol", "somebody else's token")
    return SlurmToken(Secret(match[1]), expires_at)


def _refusal(result: CommandResult) -> HpchubError:
    said = result.stderr
    if _DISABLED in said:
        return NotAllowed("Slurm lets people make no tokens here.", "Ask the site's staff.")
    if said.strip() == _NO_REASON:
        return SiteError(
            "This cluster's Slurm has no tokens.", "Its staff would set AuthAltTypes=auth/jwt (slurm.conf)."
        )
    if "SLURM_JWT" in result.stdout:
        return UnexpectedOutput("scontrol", "a token in another form")
    return failure("scontrol", CommandResult(exit_code=result.exit_code, stderr=said))
