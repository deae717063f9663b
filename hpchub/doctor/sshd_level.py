"""Judges what a login node's sshd does: whether hpchub works there, and what the strict level still needs.

The level, and why each of its lines is there, is told in docs/howto/trust-the-authority.md. Pure.
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from hpchub.doctor.forwards import Forwards, principals_line
from hpchub.doctor.principals_line import PrincipalsLine, parse_principals_line
from hpchub.doctor.report import Finding, Verdict
from hpchub.doctor.sshd_facts import SshdFacts, Step

# https://www.openssh.com/txt/release-9.8
_PENALTIES_SINCE = (9, 8)
_LEAST_STARTUPS = 10  # the bridge keeps four handshakes in flight to one node, and is not alone there
_LEAST_SESSIONS = 10
_OLD_KRL_S = 15 * 60  # no certificate lives longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a login node is to be ready for.

    `principal` is what the user's certificates say; `authority` is the hub's public line, where it is known.
    """

    principal: str
    authority: str = ""
    forwards: Forwards = Forwards.SOCKETS


def judge(facts: SshdFacts, expected: Expected) -> list[Finding]:
    """Every check, in the order of the how-to. The last finding says which level is in force."""
    found = [
        *_basics(facts),
        *_authority(facts, expected),
        *_root(facts),
        *_principals(facts, expected),
        *_krl(facts),
        *_penalties(facts),
        *_room(facts),
    ]
    return [*found, level_of(found)]


def level_of(found: list[Finding], what: str = "level") -> Finding:
    """Which level these findings add up to."""
    failed = [one.what for one in found if one.verdict is Verdict.FAILED]
    missing = [one.what for one in found if one.verdict is Verdict.MISSING]
    if failed:
        return Finding(Verdict.NOTE, what, f"none is whole: see {', '.join(failed)}")
    if missing:
        return Finding(Verdict.NOTE, what, f"one line; the strict one lacks {', '.join(missing)}")
    return Finding(Verdict.NOTE, what, "strict")


# -- what hpchub needs --------------------------------------------------------------------------


def _basics(facts: SshdFacts) -> Iterator[Finding]:
    for name, good, line in (
        ("pubkeyauthentication", {"yes"}, "PubkeyAuthentication yes"),
        ("allowtcpforwarding", {"yes", "all"}, "AllowTcpForwarding yes"),
        ("allowstreamlocalforwarding", {"yes", "all"}, "AllowStreamLocalForwarding yes"),
        ("disableforwarding", {"no", ""}, "DisableForwarding no"),
        ("forcecommand", {"none"}, "ForceCommand none"),
    ):
        value = facts.setting(name)
        if value in good:
            yield Finding(Verdict.OK, name, value or "no")
        else:
            yield Finding(Verdict.FAILED, name, f"is {value or 'not told'}.", _for_the_hub(facts, line))
    lists = facts.setting("authenticationmethods").split()
    if "any" in lists or "publickey" in lists:
        yield Finding(Verdict.OK, "authenticationmethods", " ".join(lists))
    else:
        write = _for_the_hub(facts, "AuthenticationMethods publickey")
        yield Finding(Verdict.FAILED, "authenticationmethods", f"are {' '.join(lists)}.", write)


def _authority(facts: SshdFacts, expected: Expected) -> Iterator[Finding]:
    what, line = "trustedusercakeys", "Write `TrustedUserCAKeys /etc/ssh/hpchub_ca.pub`."
    if not facts.is_set(what):
        yield Finding(Verdict.FAILED, what, "is none: sshd trusts no authority.", line)
    elif not facts.authorities:
        path = facts.setting(what)
        yield Finding(Verdict.FAILED, what, f"{path} holds no key.", "Put the line of `ca-key` into it.")
    elif expected.authority and _key(expected.authority) not in map(_key, facts.authorities):
        found = f"{facts.setting(what)} holds {len(facts.authorities)} keys, and not the hub's."
        yield Finding(Verdict.FAILED, what, found, "Put the line of `ca-key` into it.")
    else:
        told = "the hub's" if expected.authority else f"{len(facts.authorities)} keys, not compared"
        yield Finding(Verdict.OK, what, f"{facts.setting(what)}: {told}")


# -- what the strict level needs ----------------------------------------------------------------


def _root(facts: SshdFacts) -> Iterator[Finding]:
    value = facts.setting("permitrootlogin")
    if value == "no":
        yield Finding(Verdict.OK, "permitrootlogin", "no")
        return
    found = f"is {value}: a certificate that names root would be let in."
    yield Finding(Verdict.MISSING, "permitrootlogin", found, "Write `PermitRootLogin no`.")


def _principals(facts: SshdFacts, expected: Expected) -> Iterator[Finding]:
    what, template, path = "principals", facts.setting("authorizedprincipalsfile"), facts.principals_path
    is_file, is_command = (
        facts.is_set("authorizedprincipalsfile"),
        facts.is_set("authorizedprincipalscommand"),
    )
    if not is_file and not is_command:
        if expected.principal != facts.user:
            found = f"sshd lets in who is called {facts.user}; certificates say {expected.principal}."
            yield Finding(Verdict.FAILED, what, found, _PRINCIPALS_FILE)
        else:
            yield Finding(
                Verdict.MISSING, what, "a certificate need only name the account.", _PRINCIPALS_FILE
            )
    elif is_file and not any(token in template for token in ("%u", "%h", "%U")):
        found = f"{template} is one file for all: whoever it names may be everybody."
        yield Finding(Verdict.FAILED, what, found, _PRINCIPALS_FILE)
    elif not path:
        command = facts.setting("authorizedprincipalscommand")
        yield Finding(Verdict.NOTE, what, f"{command} wants to see the certificate; it was not asked")
    elif not any(not step.is_folder for step in facts.principals_walk):
        found = f"{path} is not there: no certificate lets {facts.user} in."
        yield Finding(Verdict.FAILED, what, found, f"Write it, with the line `{_line(facts, expected)}`.")
    elif unsafe := _unsafe(facts.principals_walk):
        found = f"{unsafe}: sshd refuses everybody."
        yield Finding(Verdict.FAILED, what, found, "Give it to root, mode 0755 or 0644.")
    else:
        yield from _lines(facts, expected)


def _lines(facts: SshdFacts, expected: Expected) -> Iterator[Finding]:
    lines = [parse_principals_line(line) for line in facts.principals]
    ours = [line for line in lines if line.principal == expected.principal]
    fix = f"{facts.principals_path} must give `{_line(facts, expected)}`."
    if not ours:
        yield Finding(Verdict.FAILED, "principals", f"none of them is {expected.principal}.", fix)
        return
    yield Finding(Verdict.OK, "principals", f"{facts.principals_path} has {expected.principal}")
    if any(line.principal == facts.user for line in lines):
        plain = "a certificate that only names the account is let in."
        yield Finding(Verdict.MISSING, "principal form", plain, "Take that line out; see `principals`.")
    else:
        yield Finding(Verdict.OK, "principal form", "the account's name alone lets nobody in")
    yield from _options(facts, ours[0], expected, fix)


def _options(facts: SshdFacts, line: PrincipalsLine, expected: Expected, fix: str) -> Iterator[Finding]:
    sources = line.values("from")
    if not sources:
        yield Finding(Verdict.MISSING, "from=", "certificates are taken from anywhere.", fix)
    elif not any(_covers(pattern, facts.address) for one in sources for pattern in one.split(",")):
        yield Finding(Verdict.FAILED, "from=", f"{sources[0]} does not have {facts.address}.", fix)
    else:
        yield Finding(Verdict.OK, "from=", sources[0])
    if not line.has("restrict"):
        yield Finding(Verdict.MISSING, "restrict", "what OpenSSH permits by default is permitted.", fix)
    else:
        yield Finding(Verdict.OK, "restrict", "is there")
    yield from _forwarding(line, expected.forwards, fix)


def _forwarding(line: PrincipalsLine, forwards: Forwards, fix: str) -> Iterator[Finding]:
    permitted = line.has("port-forwarding") or not line.has("restrict")
    needed = forwards is not Forwards.NOTHING
    if permitted != needed:
        verdict = Verdict.FAILED if needed else Verdict.MISSING
        found = (
            "`restrict` takes the tunnel away." if needed else "no tunnel is needed, and one is permitted."
        )
        yield Finding(verdict, "port-forwarding", found, fix)
    if not needed or not permitted:
        return
    opens = line.values("permitopen")
    ports = {target.rpartition(":")[2] for target in opens}
    if forwards is Forwards.SOCKETS and opens and "*:*" not in opens:
        found = f"{', '.join(opens)}: sshd holds unix sockets to it too, and refuses them."
        yield Finding(Verdict.FAILED, "permitopen=", found, fix)
    elif forwards is Forwards.NODES and (not opens or "*:*" in opens):
        yield Finding(Verdict.MISSING, "permitopen=", "a tunnel may lead to any port.", fix)
    elif forwards is Forwards.NODES and not ports & {"22", "*"}:
        found = f"{', '.join(opens)}: no compute node's sshd can be reached."
        yield Finding(Verdict.FAILED, "permitopen=", found, fix)
    else:
        yield Finding(Verdict.OK, "permitopen=", ", ".join(opens) or f"none, for {forwards}")
    if line.has("permitlisten"):
        yield Finding(Verdict.OK, "permitlisten=", ", ".join(line.values("permitlisten")))
    else:
        yield Finding(Verdict.MISSING, "permitlisten=", "a tunnel may open a port on this node.", fix)


def _krl(facts: SshdFacts) -> Iterator[Finding]:
    path = facts.setting("revokedkeys")
    if not facts.krl:
        line = "First `touch` the file, then write `RevokedKeys /etc/ssh/hpchub_revoked_keys`."
        yield Finding(Verdict.MISSING, "revokedkeys", "sshd has no revocation list.", line)
    elif facts.krl in {"absent", "broken"}:
        found = f"{path} is {facts.krl}: sshd refuses every key of everybody."
        yield Finding(
            Verdict.FAILED, "revokedkeys", found, "`touch` it, then fetch the list (revocation.md)."
        )
    elif unsafe := _unsafe(facts.krl_walk, sticky_is_safe=True):
        found = f"{unsafe}: others can take a revocation back."
        yield Finding(Verdict.FAILED, "revokedkeys", found, "Give it to root, mode 0755 or 0644.")
    elif facts.krl != "good":
        found = f"{path} is {'empty' if facts.krl == 'empty' else 'a list of somebody else'}."
        yield Finding(
            Verdict.MISSING, "revokedkeys", found, "Does the timer run that fetches the hub's list?"
        )
    else:
        age = f"written {facts.krl_age_s // 60} minutes ago"
        yield Finding(Verdict.OK, "revokedkeys", f"{path}, {age}")
        if facts.krl_age_s > _OLD_KRL_S:
            yield Finding(Verdict.NOTE, "revokedkeys", f"{age}: fine if it is pushed, old if it is fetched")


def _penalties(facts: SshdFacts) -> Iterator[Finding]:
    what = "persourcepenalties"
    if facts.version < _PENALTIES_SINCE and not facts.setting(what):
        told = ".".join(map(str, facts.version))
        yield Finding(Verdict.OK, what, f"OpenSSH {told} has none")
    elif facts.setting(what).startswith("no"):
        yield Finding(Verdict.OK, what, "off")
    elif _covers_any(facts.setting("persourcepenaltyexemptlist"), facts.address):
        yield Finding(Verdict.OK, what, f"{facts.address} is exempt")
    else:
        found = "are on: a few people's failed logins shut the hub out, for everybody."
        yield Finding(Verdict.MISSING, what, found, f"Write `PerSourcePenaltyExemptList {facts.address}`.")


def _room(facts: SshdFacts) -> Iterator[Finding]:
    startups, per_source = facts.setting("maxstartups"), facts.setting("persourcemaxstartups")
    if _number(startups.partition(":")[0]) < _LEAST_STARTUPS:
        yield Finding(
            Verdict.MISSING, "maxstartups", f"is {startups}.", "Write `MaxStartups 10:30:100`, or more."
        )
    elif per_source not in {"", "none"} and _number(per_source) < _LEAST_STARTUPS:
        found, write = f"is {per_source}, and the hub is one source.", "Write `PerSourceMaxStartups none`."
        yield Finding(Verdict.MISSING, "persourcemaxstartups", found, write)
    else:
        yield Finding(Verdict.OK, "maxstartups", startups)
    sessions = facts.setting("maxsessions")
    if _number(sessions) < _LEAST_SESSIONS:
        found = f"is {sessions}: the hub takes more connections instead."
        yield Finding(Verdict.MISSING, "maxsessions", found, "Write `MaxSessions 10`.")
    else:
        yield Finding(Verdict.OK, "maxsessions", sessions)


# -- small things -------------------------------------------------------------------------------

_PRINCIPALS_FILE = "Write `AuthorizedPrincipalsFile /etc/ssh/hpchub_principals/%u`."


def _line(facts: SshdFacts, expected: Expected) -> str:
    return principals_line(expected.principal, facts.address, expected.forwards)


def _for_the_hub(facts: SshdFacts, line: str) -> str:
    return f"Write `{line}`, if need be below `Match Address {facts.address}`."


def _number(text: str) -> int:
    """A number of sshd's; 0 for what is none."""
    return int(text) if text.isascii() and text.isdecimal() else 0


def _key(line: str) -> tuple[str, ...]:
    return tuple(line.split()[:2])


def _unsafe(walk: tuple[Step, ...], *, sticky_is_safe: bool = False) -> str:
    """The first path that others than root may change, and why; empty where there is none.

    A folder like /tmp lets nobody replace root's files, but StrictModes does not look at that.
    """
    for step in walk:
        if step.uid != 0:
            return f"{step.path} belongs to user id {step.uid}"
        if step.mode & 0o022 and not (sticky_is_safe and step.is_folder and step.mode & stat.S_ISVTX):
            return f"{step.path} has mode {step.mode:04o}"
    return ""


def _covers_any(patterns: str, address: str) -> bool:
    return any(_covers(pattern, address) for pattern in patterns.replace(",", " ").split())


def _covers(pattern: str, address: str) -> bool:
    """Whether an address or network of sshd's has an address; wildcards and names are not understood."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return pattern == address
