"""Which level an sshd is at, told from what Debian's OpenSSH 9.2 has said (tests/golden/capture_sshd.sh)."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.cli import main
from hpchub.core.cluster import (
    Attach,
    Cluster,
    ComputePlacement,
    Defaults,
    LoginNode,
    LoginPlacement,
    Placement,
)
from hpchub.doctor.forwards import Forwards, forwards_of, principals_line
from hpchub.doctor.principals_line import parse_principals_line
from hpchub.doctor.report import Finding, Verdict
from hpchub.doctor.sshd_facts import parse_facts
from hpchub.doctor.sshd_level import Expected, judge
from hpchub.errors import HpchubError
from support.tree import ROOT

GOLDEN = ROOT / "tests" / "golden" / "sshd"
STRICT, ONE_LINE = (
    (GOLDEN / f"{level}-9.2.txt").read_text() for level in ("strict", "one_line")
)  # fmt: skip
USUAL = Expected(principal="hpchub:games")


def findings(text: str, expected: Expected = USUAL) -> dict[str, Finding]:
    """Of each thing that was looked at, what is not well; else that it is."""
    found: dict[str, Finding] = {}
    for one in judge(parse_facts(text), expected):
        if one.what not in found or found[one.what].verdict is Verdict.OK:
            found[one.what] = one
    return found


def lacking(found: dict[str, Finding], verdict: Verdict = Verdict.MISSING) -> list[str]:
    return [what for what, one in found.items() if one.verdict is verdict]


def test_the_strict_level() -> None:
    """Nothing is missing, and the last word says so."""
    found = findings(STRICT)
    assert lacking(found) == lacking(found, Verdict.FAILED) == []
    assert found["level"].found == "strict"


def test_one_line() -> None:
    """OpenSSH's defaults and the authority: it works, and each thing that is missing says what to write."""
    found = findings(ONE_LINE, Expected(principal="games"))
    assert lacking(found, Verdict.FAILED) == []
    assert lacking(found) == ["permitrootlogin", "principals", "revokedkeys"]
    assert found["level"].found == "one line; the strict one lacks permitrootlogin, principals, revokedkeys"
    assert all("rite `" in found[what].write for what in lacking(found))
    assert lacking(findings(ONE_LINE), Verdict.FAILED) == ["principals"], "certificates say hpchub:games"


@pytest.mark.parametrize(
    ("old", "new", "what", "verdict", "says"),
    [
        ("pubkeyauthentication yes", "pubkeyauthentication no", "pubkeyauthentication", "failed", "is no"),
        ("allowtcpforwarding yes", "allowtcpforwarding local", "allowtcpforwarding", "failed", "is local"),
        ("allowstreamlocalforwarding yes", "allowstreamlocalforwarding no", "allowstreamlocalforwarding",
         "failed", "is no"),
        ("disableforwarding no", "disableforwarding yes", "disableforwarding", "failed", "is yes"),
        ("forcecommand none", "forcecommand /bin/menu", "forcecommand", "failed", "/bin/menu"),
        ("authenticationmethods any", "authenticationmethods publickey,password", "authenticationmethods",
         "failed", "publickey,password"),
        ("trustedusercakeys /etc/ssh/hpchub_ca.pub", "trustedusercakeys none", "trustedusercakeys", "failed",
         "trusts no authority"),
        ("\nca ssh-ed25519", "\nca #", "trustedusercakeys", "failed", "holds no key"),
        ("permitrootlogin no", "permitrootlogin yes", "permitrootlogin", "missing", "names root"),
        ("hpchub_principals/%u", "everybody", "principals", "failed", "one file for all"),
        ("principals_walk 0 644", "principals_walk 1000 644", "principals", "failed", "user id 1000"),
        ("principals_walk 0 755", "principals_walk 0 775", "principals", "failed", "mode 0775"),
        ("krl good", "krl absent", "revokedkeys", "failed", "refuses every key of everybody"),
        ("krl good", "krl broken", "revokedkeys", "failed", "refuses every key of everybody"),
        ("krl good", "krl empty", "revokedkeys", "missing", "is empty"),
        ("krl good", "krl text", "revokedkeys", "missing", "somebody else"),
        ("krl_walk 0 644", "krl_walk 0 666", "revokedkeys", "failed", "take a revocation back"),
        ('from="192.0.2.10"', 'from="192.0.2.11"', "from=", "failed", "does not have 192.0.2.10"),
        ('from="192.0.2.10",', "", "from=", "missing", "from anywhere"),
        ("restrict,port-forwarding", "restrict", "port-forwarding", "failed", "tunnel away"),
        ('permitlisten="none:1"', 'permitopen="none:1"', "permitopen=", "failed", "unix sockets"),
        ('permitlisten="none:1"', 'permitopen="*:*"', "permitlisten=", "missing", "open a port"),
        ("maxstartups 10:30:100", "maxstartups 3:50:10", "maxstartups", "missing", "3:50:10"),
        ("persourcemaxstartups none", "persourcemaxstartups 2", "persourcemaxstartups", "missing",
         "one source"),
        ("maxsessions 10", "maxsessions 2", "maxsessions", "missing", "is 2"),
    ],
)  # fmt: skip
def test_each_departure_is_found(old: str, new: str, what: str, verdict: str, says: str) -> None:
    """What is wrong and what is missing are told apart, by name, with what to write."""
    assert old in STRICT
    found = findings(STRICT.replace(old, new, 1))
    assert found[what].verdict == verdict and says in found[what].found, found[what]
    assert found[what].write
    assert found["level"].found != "strict"


def test_penalties() -> None:
    """OpenSSH 9.8 and later must exempt the hub. Its answer is made up here: we have no such sshd."""
    later = STRICT.replace("version OpenSSH_9.2", "version OpenSSH_9.9")
    later += "setting persourcepenalties crash:90.0 authfail:5.0 noauth:1.0 max:600.0 min:15.0\n"
    for extra, verdict in (
        ("setting persourcepenaltyexemptlist none\n", Verdict.MISSING),
        ("setting persourcepenaltyexemptlist 192.0.2.8/31\n", Verdict.MISSING),
        ("setting persourcepenaltyexemptlist 198.51.100.1,192.0.2.0/24\n", Verdict.OK),
    ):
        assert findings(later + extra)["persourcepenalties"].verdict is verdict
    assert "192.0.2.10" in findings(later)["persourcepenalties"].write
    off = later.replace("penalties crash", "penalties no crash")
    assert findings(off)["persourcepenalties"].verdict is Verdict.OK


def cluster(attach: Attach | None, *, login: bool) -> Cluster:
    return Cluster(
        name="a", title="A", scheduler="slurm", login_nodes=(LoginNode(name="l", address="l"),),
        known_hosts=Path("k"), login=LoginPlacement() if login else None,
        compute=ComputePlacement(attach=attach) if attach else None, environments={},
        defaults=Defaults(placement=Placement.LOGIN, environment="e"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("attach", "login", "forwards"),
    [(attach, True, Forwards.SOCKETS) for attach in (None, *Attach)]
    + [
        (Attach.SRUN, False, Forwards.NOTHING),
        (Attach.SSH, False, Forwards.NODES),
        (Attach.TCP, False, Forwards.PORTS),
    ],
)
def test_what_a_cluster_needs_is_what_is_asked_for(
    attach: Attach | None, login: bool, forwards: Forwards
) -> None:
    """The line that the doctor would have written is one that it is content with."""
    assert forwards_of(cluster(attach, login=login)) is forwards
    (old,) = (line for line in STRICT.split("\n") if line.startswith("principal "))
    line = principals_line("hpchub:games", "192.0.2.10", forwards)
    found = findings(
        STRICT.replace(old, f"principal {line}"), Expected(principal="hpchub:games", forwards=forwards)
    )
    assert found["level"].found == "strict"
    if forwards is Forwards.NODES:
        found = findings(STRICT, Expected(principal="hpchub:games", forwards=forwards))
        assert found["permitopen="].verdict is Verdict.MISSING
    if forwards is Forwards.NOTHING:
        found = findings(STRICT, Expected(principal="hpchub:games", forwards=forwards))
        assert found["port-forwarding"].verdict is Verdict.MISSING


def test_options_are_read_as_sshd_reads_them() -> None:
    """Commas within quotes, quoted quotes, any case, a tab before the principal, no option at all."""
    line = parse_principals_line('FROM="192.0.2.1,192.0.2.2",Restrict,environment="A=\\"x, y\\""\thpchub:a')
    assert line.principal == "hpchub:a"
    assert line.options == (("from", "192.0.2.1,192.0.2.2"), ("restrict", ""), ("environment", 'A="x, y"'))
    assert parse_principals_line("alice").options == ()


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(STRICT.split("\n"))).map("\n".join)
    | st.tuples(st.sampled_from(STRICT.split("\n")), st.text(max_size=9)).map(
        lambda pair: STRICT.replace(pair[0], pair[0].rpartition(" ")[0] + " " + pair[1])
    )
)
def test_any_text_is_judged_or_refused(text: str) -> None:
    """What somebody else's sshd, or no sshd at all, has said raises our errors or nothing."""
    try:
        judge(parse_facts(text), USUAL)
    except HpchubError as error:
        assert error.message


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0 where it works, 1 where not, with --strict where something is missing; and JSON."""
    strict, loose = tmp_path / "strict", tmp_path / "loose"
    strict.write_text(STRICT)
    loose.write_text(ONE_LINE)
    form = ("--principal", "hpchub:{account}")
    assert main(["doctor", "--sshd", str(strict), *form, "--strict"]) == 0
    assert "ok       permitrootlogin: no\n" in capsys.readouterr().out
    assert main(["doctor", "--sshd", str(loose)]) == 0
    assert capsys.readouterr().out.endswith("All is well. 3 missing for the strict level.\n")
    assert main(["doctor", "--sshd", str(loose), "--strict"]) == 1
    assert main(["doctor", "--sshd", str(loose), *form]) == 1
    capsys.readouterr()
    monkeypatch.setattr("sys.stdin", io.StringIO(STRICT))
    assert main(["doctor", "--sshd", "-", *form, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["failed"], told["missing"]) == (0, 0)
    assert {"verdict": "ok", "what": "permitrootlogin", "found": "no", "write": ""} in told["checks"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sshd", "nowhere"), "cannot be read"),
        (("--sshd", __file__), "not what sshd_facts.sh prints"),
        (("--sshd",), "--user and --address are needed"),
        (("--sshd", str(GOLDEN / "strict-9.2.txt"), "--principal", "root"), "no form of a principal"),
        ((), "--config and --user are needed"),
    ],
)
def test_what_is_wrong_with_a_call_is_said(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, and exit code 1."""
    assert main(["doctor", *arguments]) == 1
    assert says in capsys.readouterr().err
