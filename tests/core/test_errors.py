"""hpchub.errors"""

from __future__ import annotations

import json

import pytest

from hpchub import errors

EXAMPLES = (
    errors.InvalidRequest("bad", "do this", fields={"cpus": "1 to 4"}),
    errors.NotAllowed("no", "log in"),
    errors.NoSession("ended", "log in again"),
    errors.AccountProblem("home full"),
    errors.TooManyServers("3 of 3", "stop one"),
    errors.SubmitRejected("refused", "ask for less"),
    errors.StartFailed("died", log_tail="last line", log_path="/home/a/server.log"),
    errors.GivenUp("given up"),
    errors.ConfigError("wrong", problems=["a.toml:1: x"]),
    errors.StoreTaken("another bridge"),
    errors.UnexpectedOutput("squeue", "nonsense"),
    errors.EnrolmentRequired("set one up", ticket="t"),
    errors.StoreUnavailable("disk full"),
    errors.SchedulerUnavailable("down", retryable=False),
    errors.HostUnreachable("gone"),
    errors.NotListening("not yet"),
    errors.ProcessAway("no signer"),
    errors.HostKeyMismatch("other key"),
    errors.CertificateExpired("late"),
    errors.HpchubError("whatever"),
)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_cross_the_wire(error: errors.HpchubError) -> None:
    """What goes in as JSON comes out as the same class with the same words and details."""
    body = json.loads(json.dumps(errors.to_wire(error)))
    back = errors.from_wire(body)
    assert type(back) is type(error)
    assert json.loads(json.dumps(errors.to_wire(back))) == body


def test_every_class_has_an_example() -> None:
    """The table above leaves out only the three families. The magics' own error stays in the notebook."""
    families = {errors.UserError, errors.SiteError, errors.RemoteError}
    seen, queue = set(), [errors.HpchubError]
    while queue:
        kind = queue.pop()
        seen.add(kind)
        queue += [one for one in kind.__subclasses__() if one.__module__.startswith("hpchub.")]
    assert seen - families == {type(error) for error in EXAMPLES}


def test_an_unknown_class_is_still_an_error() -> None:
    """An error of a newer process keeps its words."""
    back = errors.from_wire({"error": "Newer", "message": "words", "hint": "h", "retryable": True})
    assert type(back) is errors.HpchubError
    assert (back.message, back.hint, back.retryable) == ("words", "h", True)


def test_remote_errors_are_retryable_but_for_two() -> None:
    """A mismatched host key and an expired certificate are never retried by themselves."""
    assert errors.SchedulerUnavailable("x").retryable
    assert not errors.HostKeyMismatch("x").retryable
    assert not errors.CertificateExpired("x").retryable


def test_an_excerpt_is_short() -> None:
    """Output that nobody can read does not fill a page or a log."""
    assert len(errors.UnexpectedOutput("squeue", "x" * 10_000).message) < 400
