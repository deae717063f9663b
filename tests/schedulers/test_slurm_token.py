"""Slurm's own tokens: whose, how long, and what is said where there are none. Answers of a real 22.05."""

from __future__ import annotations

import base64
import json

import pytest
from golden.reader import golden

from hpchub.core.command import CommandResult
from hpchub.errors import InvalidRequest, NotAllowed, SchedulerUnavailable, SiteError, UnexpectedOutput
from hpchub.schedulers.slurm_token import parse_token, token_command


def made(claims: object, before: str = "") -> CommandResult:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return CommandResult(exit_code=0, stdout=f"{before}SLURM_JWT=head.{body}.canary-signature\n")


def test_what_is_asked() -> None:
    """For whoever runs it, for minutes, of the cluster that the site names."""
    assert token_command(1800).argv == ("scontrol", "token", "lifespan=1800")
    assert token_command(60, "alpha").argv == ("scontrol", "--clusters=alpha", "token", "lifespan=60")
    for lifespan_s in (59, 3601, -1):
        with pytest.raises(InvalidRequest):
            token_command(lifespan_s)


def test_a_token() -> None:
    """It does not show itself; its end is told; a notice of a login script before it does not matter."""
    token = parse_token(golden("scontrol_token"), "alice")
    assert token.token.reveal().count(".") == 2
    assert token.expires_at > 1_700_000_000
    found = parse_token(made({"sun": "alice", "exp": 1_800_000_000}, before="Welcome\n"), "alice")
    assert (found.expires_at, "canary" in repr(found)) == (1_800_000_000, False)


@pytest.mark.parametrize(
    "result",
    [
        made({"sun": "bob", "exp": 1}),
        made({"sun": "alice"}),
        made({"exp": 1}),
        made(["sun"]),
        CommandResult(exit_code=0, stdout="SLURM_JWT=canary.!!!.canary\n"),
        CommandResult(exit_code=0, stdout="SLURM_JWT=a.canary.b\n"),
        CommandResult(exit_code=1, stdout="SLURM_JWT=a.canary.b\n"),
        CommandResult(exit_code=0, stdout="x SLURM_JWT=canary\n"),
    ],
)
def test_what_is_no_token_of_theirs(result: CommandResult) -> None:
    """Somebody else's, or one that cannot be read: refused, and the message shows nothing of it."""
    with pytest.raises(UnexpectedOutput) as caught:
        parse_token(result, "alice")
    assert "canary" not in str(caught.value)
    assert "canary" not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("off", SiteError, "has no tokens"),
        ("disabled", NotAllowed, "lets people make no tokens"),
        ("controller_down", SchedulerUnavailable, "Unable to contact"),
        ("of_another", UnexpectedOutput, "Invalid user id"),
    ],
)
def test_refusals(name: str, error: type[Exception], words: str) -> None:
    """No auth/jwt, tokens kept from people, no controller: each in words of its own."""
    with pytest.raises(error, match=words):
        parse_token(golden(f"scontrol_token_{name}"), "alice")


def test_an_answer_without_words() -> None:
    """Nothing at all is no refusal that we know."""
    with pytest.raises(UnexpectedOutput, match="exit code 3"):
        parse_token(CommandResult(exit_code=3), "alice")
