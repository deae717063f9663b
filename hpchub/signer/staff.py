"""What staff do to the signer's state while it runs: limits on failed logins, people's second factors."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime

from hpchub.audit import Event, Outcome, Record
from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import InvalidRequest
from hpchub.signer.factor_rows import forget_second_factor
from hpchub.signer.guard import Count, Guard
from hpchub.signer.settings import SignerSettings, open_audit_log
from hpchub.signer.state import State

# The factor in the audit log: whoever may read and write the state folder.
_FACTOR = "staff"


def configure(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The actions and their arguments."""
    limits = actions.add_parser("limits", help="show who has failed to log in, and who has to wait")
    limits.add_argument("who", nargs="?", default="", metavar="USER|ADDRESS", help="only that one's")
    lift = actions.add_parser("lift-limit", help="forget the failures of a user, or of an address")
    lift.add_argument("who", metavar="USER|ADDRESS")
    know = actions.add_parser("know-address", help="treat an address as one the user has logged in from")
    know.add_argument("user", metavar="USER")
    know.add_argument("address", metavar="ADDRESS")
    reset = actions.add_parser("reset-second-factor", help="forget a user's second factor and recovery codes")
    reset.add_argument("user", metavar="USER")


def run(args: argparse.Namespace, settings: SignerSettings) -> None:
    """Do one of `ACTIONS`. The signer may run meanwhile.

    Raises:
        InvalidRequest: The argument is neither an account's name nor an address.
        ConfigError, SiteError: The state folder or the audit log cannot be used.
    """
    with closing(State(settings.state_dir)) as state:
        ACTIONS[args.action](args, settings, state)


def _limits(args: argparse.Namespace, settings: SignerSettings, state: State) -> None:
    counts = Guard(state, settings.guessing).counts(_named(args.who) if args.who else "")
    if not counts:
        print("Nothing is counted.")
        return
    rows = [("USER", "ADDRESS", "FAILURES", "REFUSED", "KNOWN", "WAITS UNTIL (UTC)")]
    rows += [_row(count) for count in counts]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(count: Count) -> tuple[str, str, str, str, str, str]:
    known = "yes" if count.known else "no"
    if not count.address:
        everywhere = "(all known)" if count.known else "(all unknown)"
        return count.account, everywhere, f"{count.share:.0%} of allowance", "", "", ""
    if not count.account:
        return "(all)", count.address, f"{count.share:.0%} of allowance", "", "", ""
    until = datetime.fromtimestamp(count.waits_until, UTC)
    waits = until.strftime("%Y-%m-%d %H:%M:%S") if count.waits_until else ""
    return count.account, count.address, str(count.failures), str(count.refused), known, waits


def _lift(args: argparse.Namespace, settings: SignerSettings, state: State) -> None:
    guard = Guard(state, settings.guessing)
    who = _named(args.who)
    _record(settings, Event.LIMIT_LIFTED, **_told(who))
    print(f"Forgotten for {who}: {guard.lift(who)} counts.")


def _know(args: argparse.Namespace, settings: SignerSettings, state: State) -> None:
    guard = Guard(state, settings.guessing)
    user, address = _named(args.user), _named(args.address)
    if not is_safe_account_name(user) or is_safe_account_name(address):
        raise InvalidRequest("Give a user and an address.")
    _record(settings, Event.ADDRESS_KNOWN, user=user, source=address)
    guard.know(user, address)
    print(f"{user} now has the allowance of a known address at {address}.")


def _reset(args: argparse.Namespace, settings: SignerSettings, state: State) -> None:
    if not is_safe_account_name(args.user):
        raise InvalidRequest(f"{args.user!r} is no account's name.")
    _record(settings, Event.SECOND_FACTOR_RESET, user=args.user)
    had_one = forget_second_factor(state, args.user)
    print(f"{args.user} {'has no second factor any more' if had_one else 'had no second factor'}.")


def _named(who: str) -> str:
    """A user's name or an address, as it was given. InvalidRequest where it is neither."""
    if is_safe_account_name(who):
        return who
    try:
        return str(ipaddress.ip_address(who))
    except ValueError as error:
        raise InvalidRequest(f"{who!r} is neither an account's name nor an IP address.") from error


def _told(who: str) -> dict[str, str]:
    return {"user": who} if is_safe_account_name(who) else {"source": who}


def _record(settings: SignerSettings, event: Event, *, user: str = "", source: str = "") -> None:
    """Before it is done, as with everything that is granted; into the same chain as the signer's."""
    open_audit_log(settings).record(
        Record(event=event, outcome=Outcome.GRANTED, user=user, source=source, factor=_FACTOR)
    )


ACTIONS: dict[str, Callable[[argparse.Namespace, SignerSettings, State], None]] = {
    "limits": _limits,
    "lift-limit": _lift,
    "know-address": _know,
    "reset-second-factor": _reset,
}
