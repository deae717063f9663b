"""What is granted, decided without a clock, a key or a file."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.certificate import Profile
from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import InvalidRequest, NotAllowed
from hpchub.remote.slurm_query import FORCED_COMMAND
from hpchub.signer.policy import (
    Grant,
    Plan,
    Policy,
    plan_certificate,
    plan_grant,
    plan_query_certificate,
)

FINGERPRINT = "SHA256:" + "a" * 43
NOW = 1_800_000_000
POLICY = Policy(certificate_lifetime_s=600, login_ceiling_s=43200, source_addresses=("192.0.2.0/24",))


def grant(account: str = "alice") -> Grant:
    return plan_grant(
        POLICY, account=account, factor="password", fingerprint=FINGERPRINT, now=NOW, grant_id="0" * 32
    )


def plan(profile: Profile = Profile.CONTROL, now: int = NOW, policy: Policy = POLICY) -> Plan:
    return plan_certificate(policy, grant(), profile=profile, fingerprint=FINGERPRINT, now=now, serial=255)


def test_control_certificate_permits_commands_and_no_forwarding() -> None:
    """A control certificate carries no extension at all and forces no command."""
    assert plan() == Plan(
        account="alice",
        principal="alice",
        profile=Profile.CONTROL,
        serial=255,
        key_id="hpchub:alice:control:00000000000000ff",
        fingerprint=FINGERPRINT,
        valid_after=NOW - 60,
        valid_before=NOW + 600,
        source_addresses=("192.0.2.0/24",),
        force_command=None,
        extensions=frozenset(),
    )


def test_tunnel_certificate_permits_forwarding_and_no_command() -> None:
    """A tunnel certificate carries port forwarding alone and forces a command that does nothing."""
    planned = plan(Profile.TUNNEL)
    assert planned.extensions == {"permit-port-forwarding"}
    assert planned.force_command == "/bin/false"


@pytest.mark.parametrize(
    ("age_s", "left_s"), [(0, 600), (43200 - 601, 600), (43200 - 600, 600), (43200 - 599, 599), (43199, 1)]
)
def test_certificate_ends_at_the_ceiling_at_the_latest(age_s: int, left_s: int) -> None:
    """Near the ceiling a certificate is shorter than its usual lifetime."""
    assert plan(now=NOW + age_s).valid_before == NOW + age_s + left_s


@pytest.mark.parametrize("late_s", [0, 1, 10**6])
def test_nothing_is_minted_from_the_ceiling_on(late_s: int) -> None:
    """At the ceiling and after it, the login is over."""
    with pytest.raises(NotAllowed, match="ended"):
        plan(now=NOW + 43200 + late_s)


def test_a_lowered_ceiling_counts_for_logins_made_before() -> None:
    """A site that lowers login_ceiling need not wait for old grants to run out."""
    with pytest.raises(NotAllowed, match="ended"):
        plan(now=NOW + 3600, policy=replace(POLICY, login_ceiling_s=3600))


def test_another_key_earns_nothing() -> None:
    """A grant is for one public key."""
    with pytest.raises(NotAllowed, match="another key"):
        plan_certificate(
            POLICY, grant(), profile=Profile.CONTROL, fingerprint="SHA256:" + "b" * 43, now=NOW, serial=1
        )


@given(st.text(max_size=40) | st.from_regex(r"[A-Za-z0-9._,*@/\n -]{0,36}", fullmatch=True))
def test_only_safe_names_become_principals(name: str) -> None:
    """Whatever text comes as an account, a certificate names one plain account or there is none."""
    try:
        earned = grant(name)
    except NotAllowed:
        assert not is_safe_account_name(name)
        return
    planned = plan_certificate(
        POLICY, earned, profile=Profile.TUNNEL, fingerprint=FINGERPRINT, now=NOW, serial=2**64 - 1
    )
    assert planned.principal == name
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9._-]{0,31}", name, re.ASCII)
    assert name.lower() != "root"
    assert re.fullmatch(r"[A-Za-z0-9._:=@-]{1,128}", planned.key_id, re.ASCII)


@pytest.mark.parametrize(
    "change",
    [
        {"principal": ""},
        {"principal": "*"},
        {"principal": "alice,bob"},
        {"principal": "root"},
        {"principal": "ROOT"},
        {"principal": "bob"},
        {"principal": "alicewood"},
        {"principal": "hpchub:bob"},
        {"principal": "hpchub:alice,bob"},
        {"principal": "hpchub:alice\n"},
        {"account": "root", "principal": "hpchub:root"},
        {"account": "", "principal": "hpchub:"},
        {"serial": 0},
        {"serial": 2**64},
        {"key_id": "a b"},
        {"key_id": "a\nb"},
        {"key_id": "a" * 129},
        {"key_id": ""},
        {"valid_before": NOW - 60},
        {"valid_after": 0},
        {"source_addresses": ()},
        {"extensions": frozenset({"permit-pty"})},
        {"extensions": frozenset({"permit-port-forwarding", "permit-agent-forwarding"})},
    ],
)
def test_a_plan_out_of_bounds_cannot_be_made(change: dict[str, object]) -> None:
    """The type itself refuses what no certificate of ours may be."""
    with pytest.raises(ValueError, match="a certificate"):
        replace(plan(), **change)  # type: ignore[arg-type]


def test_a_policy_without_source_addresses_cannot_be_made() -> None:
    """No setting leads to certificates that work from anywhere."""
    with pytest.raises(ValueError, match="anywhere"):
        replace(POLICY, source_addresses=())


# -- service accounts --------------------------------------------------------------------------

WATCHED = replace(POLICY, query_accounts=("slurmwatch",))


def query_plan(account: str = "slurmwatch", policy: Policy = WATCHED) -> Plan:
    return plan_query_certificate(policy, account=account, fingerprint=FINGERPRINT, now=NOW, serial=255)


def test_query_certificate_permits_the_query_alone() -> None:
    """A service account's certificate forces the query, carries no extension, and is as short as others."""
    assert query_plan() == Plan(
        account="slurmwatch",
        principal="slurmwatch",
        profile=Profile.QUERY,
        serial=255,
        key_id="hpchub:slurmwatch:query:00000000000000ff",
        fingerprint=FINGERPRINT,
        valid_after=NOW - 60,
        valid_before=NOW + 600,
        source_addresses=("192.0.2.0/24",),
        force_command=FORCED_COMMAND,
        extensions=frozenset(),
    )


@given(st.text(max_size=40) | st.sampled_from(["root", "alice", "slurm", "slurmwatch ", "SLURMWATCH", "*"]))
def test_only_named_accounts_may_ask(account: str) -> None:
    """Whatever else is asked for, there is no certificate; nor where the site has named none."""
    for policy in (WATCHED, POLICY):
        if policy is WATCHED and account == "slurmwatch":
            continue
        with pytest.raises(NotAllowed, match="may not ask"):
            query_plan(account, policy)


@pytest.mark.parametrize("account", ["root", "slurm", "", "a,b", "*"])
def test_a_policy_names_no_account_that_runs_the_machine(account: str) -> None:
    """No setting leads to a certificate for root, even one that only asks."""
    with pytest.raises(ValueError, match="an account for queries"):
        replace(POLICY, query_accounts=(account,))


@pytest.mark.parametrize("account", ["slurmwatch", "SlurmWatch"])
def test_nobody_logs_in_as_a_service_account(account: str) -> None:
    """Else a password would turn it into an account that may do anything; capitals do not count."""
    with pytest.raises(NotAllowed):
        plan_grant(
            WATCHED,
            account=account,
            factor="password",
            fingerprint=FINGERPRINT,
            now=NOW,
            grant_id="0" * 32,
        )


def test_a_login_earns_no_query_certificate() -> None:
    """The profile is for service accounts, and they have no login."""
    with pytest.raises(NotAllowed, match="not earned by a login"):
        plan(Profile.QUERY)


@pytest.mark.parametrize(
    "change",
    [
        {"force_command": None},
        {"force_command": "/bin/sh"},
        {"extensions": frozenset({"permit-port-forwarding"})},
    ],
)
def test_a_query_plan_cannot_be_widened(change: dict[str, object]) -> None:
    """The type itself refuses a query certificate that may do more."""
    with pytest.raises(ValueError, match="more than queries"):
        replace(query_plan(), **change)  # type: ignore[arg-type]


# -- principals --------------------------------------------------------------------------------

BOTH = replace(POLICY, principals=("hpchub:{account}", "{account}"), query_accounts=("slurmwatch",))


def principal(form: str, policy: Policy = BOTH) -> str:
    return plan_certificate(
        policy, grant(), profile=Profile.CONTROL, fingerprint=FINGERPRINT, now=NOW, serial=1, form=form
    ).principal


def test_a_cluster_chooses_among_the_site_s_forms() -> None:
    """Two clusters may differ; whoever names no form gets the first, service accounts too."""
    assert [principal(form) for form in ("", "hpchub:{account}", "{account}")] == [
        "hpchub:alice",
        "hpchub:alice",
        "alice",
    ]
    query = plan_query_certificate(BOTH, account="slurmwatch", fingerprint=FINGERPRINT, now=NOW, serial=1)
    assert (query.principal, query.account) == ("hpchub:slurmwatch", "slurmwatch")


@pytest.mark.parametrize(
    "form", ["root", "{account}{account}", "hpchub:bob", "x:{account}", "{account},root"]
)
def test_no_other_form_is_made(form: str) -> None:
    """A hub cannot ask for a form that the signer's settings do not have, nor for a name."""
    with pytest.raises(InvalidRequest, match="makes no certificates"):
        principal(form)
    with pytest.raises(InvalidRequest, match="makes no certificates"):
        principal("{account}", replace(POLICY, principals=("hpchub:{account}",)))


@pytest.mark.parametrize(
    "form",
    [
        *("", "root", "hpchub-{account}", "ro{account}", "*:{account}", "a,b:{account}", "a b:{account}"),
        *("{account}:{account}", "{account}:\n", "x" * 33 + ":{account}", "{user}", "hpchub:"),
    ],
)
def test_a_form_that_might_be_an_account_is_none(form: str) -> None:
    """Each form has a character that no account's name has, one place for it, and nothing that means more."""
    with pytest.raises(ValueError, match="form of principals"):
        replace(POLICY, principals=(form,))


@given(st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True))
def test_a_principal_is_one_person_s(account: str) -> None:
    """Where two forms could make one principal of two accounts, neither account gets it."""
    policy = replace(POLICY, principals=("x:{account}", "{account}:y", "{account}"))
    for form in policy.principals:
        try:
            earned = grant(account)
            planned = plan_certificate(
                policy, earned, profile=Profile.CONTROL, fingerprint=FINGERPRINT, now=NOW, serial=1, form=form
            )
        except (NotAllowed, InvalidRequest):
            continue
        read = {planned.principal.removeprefix("x:"), planned.principal.removesuffix(":y"), planned.principal}
        assert {one for one in read if is_safe_account_name(one)} == {account}
    for clashing in ("y", "x"):
        form = "x:{account}" if clashing == "y" else "{account}:y"
        with pytest.raises(InvalidRequest, match="somebody else"):
            plan_certificate(
                policy,
                grant(clashing),
                profile=Profile.CONTROL,
                fingerprint=FINGERPRINT,
                now=NOW,
                serial=1,
                form=form,
            )
