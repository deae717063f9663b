"""Whose account that is: the site's rule, and everything that it does not allow."""

from __future__ import annotations

import pwd
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.slugs import is_safe_account_name
from hpchub.errors import ConfigError, SiteError
from hpchub.signer.oidc_accounts import NoAccount, load_subjects, make_account_rule
from hpchub.signer.oidc_settings import OidcSettings

BASE = OidcSettings(issuer="https://login.example.org", client_id="hpchub")
BY_ADDRESS = replace(
    BASE, account_claim="email", account_suffix="@example.org", account_pattern=re.compile("[a-z]+[0-9]*")
)


def portal_rule(claims: dict[str, Any]) -> Any:
    """A site function, as a site would write it."""
    return claims["portal"]


def test_domain_and_characters() -> None:
    """The part before the site's own domain, where the rest is as the site wants it and was verified."""
    rule = make_account_rule(BY_ADDRESS)
    assert rule({"email": "alice7@example.org", "email_verified": True}) == "alice7"
    for email in (
        "alice@example.org.evil.example",
        "alice@evil.example",
        "alice@EXAMPLE.ORG",
        "alice@example.org@example.org",
        "alice+x@example.org",
        "Alice@example.org",
        "alice@example.org\n",
        "\u0430lice@example.org",
        "root@example.org",
        "@example.org",
        "a" * 300 + "@example.org",
    ):
        with pytest.raises(NoAccount):
            rule({"email": email, "email_verified": True})


@pytest.mark.parametrize("verified", [None, False, "true", 1])
def test_an_address_must_be_verified(verified: object) -> None:
    """Otherwise somebody could call themselves what they like."""
    with pytest.raises(NoAccount, match="verified"):
        make_account_rule(BY_ADDRESS)({"email": "alice@example.org", "email_verified": verified})


@given(st.one_of(st.text(), st.integers(), st.lists(st.text()), st.none()))
def test_any_claim_gives_a_safe_account_or_none(value: object) -> None:
    """Whatever the provider says, what comes out may stand in a certificate."""
    rule = make_account_rule(replace(BASE, account_claim="preferred_username"))
    try:
        account = rule({"preferred_username": value, "sub": "x"})
    except NoAccount:
        return
    assert is_safe_account_name(account)


def test_site_function() -> None:
    """A function of the site's names the account; what it cannot tell is nobody; a fault refuses nobody."""
    rule = make_account_rule(replace(BASE, account_function=f"{__name__}:portal_rule"))
    assert rule({"portal": "alice"}) == "alice"
    for wrong in (None, "", "root", "a b", 7):
        with pytest.raises(NoAccount):
            rule({"portal": wrong})
    with pytest.raises(SiteError) as caught:
        rule({})
    assert str(caught.value.__cause__) == "account_function raised KeyError"
    for dotted in ("no.such.module:rule", f"{__name__}:no_such_rule", f"{__name__}:BASE"):
        with pytest.raises(ConfigError, match="account_function"):
            make_account_rule(replace(BASE, account_function=dotted))


def test_subjects_in_a_file(tmp_path: Path) -> None:
    """Each subject has one account; a wrong line is named and nobody is let in meanwhile."""
    file = tmp_path / "subjects"
    file.touch(0o600)
    file.write_text("# portal\n\nalice:f:1:subject one\nalice:2\nbob:3\n")
    assert load_subjects(file) == {"f:1:subject one": "alice", "2": "alice", "3": "bob"}
    rule = make_account_rule(replace(BASE, account_file=file))
    assert rule({"sub": "2"}) == "alice"
    with pytest.raises(NoAccount):
        rule({"sub": "4"})
    file.write_text("root:1\nalice\nalice:\nalice: 5\nalice:6\nbob:6\n")
    with pytest.raises(ConfigError) as caught:
        load_subjects(file)
    assert [problem.split(":")[1] for problem in caught.value.problems] == ["1", "2", "3", "4", "6"]
    with pytest.raises(SiteError, match=r"^Accounts cannot be looked up now\. Tell the site's staff\.$"):
        rule({"sub": "6"})


def test_the_machines_own_accounts() -> None:
    """Where the site wants it, an account must be known on the signer's machine, with a person's user id."""
    found = next(entry for entry in pwd.getpwall() if is_safe_account_name(entry.pw_name) and entry.pw_uid)
    claims = {"name": found.pw_name}
    settings = replace(BASE, account_claim="name", min_uid_number=found.pw_uid)
    assert make_account_rule(settings)(claims) == found.pw_name
    with pytest.raises(NoAccount, match="too low"):
        make_account_rule(replace(settings, min_uid_number=found.pw_uid + 1))(claims)
    with pytest.raises(NoAccount, match="no account"):
        make_account_rule(settings)({"name": "nobody-of-that-name"})
