"""The directory's settings are read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.toml_table import Table
from hpchub.signer.ldap_settings import LdapSettings, read_ldap

GOOD = {"servers": ["ldaps://a.example.org"], "ca_file": "ca.pem", "user_dn": "uid={account},ou=p,o=x"}
SEARCH = {
    "servers": ["ldap://a.example.org:3389", "ldaps://[2001:db8::1]:636"],
    "ca_file": "/ca.pem",
    "search_base": "o=x",
    "search_dn": "cn=h,o=x",
    "search_password_file": "pw",
}


def read(body: dict[str, Any]) -> tuple[LdapSettings, list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []
    table = Table(body, "proof", problems)
    found = read_ldap(table, Path("/etc/hpchub"))
    table.finish()
    return found, problems


def test_settings_and_their_defaults() -> None:
    """Both ways of finding people; relative paths count from the file's folder."""
    found, problems = read(GOOD)
    assert problems == []
    assert (found.ca_file, found.search_password_file) == (Path("/etc/hpchub/ca.pem"), None)
    found, problems = read(SEARCH)
    assert problems == []
    assert (found.search_filter, found.account_attribute) == ("(uid={account})", "uid")
    assert (found.ca_file, found.search_password_file) == (Path("/ca.pem"), Path("/etc/hpchub/pw"))
    found, problems = read({"servers": ["ldapi:///run/slapd/ldapi"], "user_dn": "uid={account},o=x"})
    assert (problems, found.ca_file) == ([], None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"servers": []}, "must name 1 to 4 servers"),
        ({"servers": ["ldaps://a"] * 5}, "must name 1 to 4 servers"),
        ({"servers": ["ldap://a/?x"]}, "is not a list of texts"),
        ({"servers": ["http://a"]}, "is not a list of texts"),
        ({"servers": ["a.example.org"]}, "is not a list of texts"),
        ({"ca_file": None}, "is missing"),
        ({"servers": ["ldaps://a", "ldapi:///s"], "ca_file": None}, "is missing"),
        ({"user_dn": "uid=alice,o=x"}, "must hold {account}"),
        ({"user_dn": "{account}"}, "is not a DN"),
        ({"user_dn": "uid={account}{account},o=x"}, "is not a DN"),
        ({"user_dn": None}, "write either user_dn or search_base"),
        ({"search_base": "o=x"}, "write either user_dn or search_base"),
        ({"user_filter": "(memberOf={account})"}, "may not hold {account}"),
        ({"user_filter": "memberOf=x"}, "is not one filter"),
        ({"user_filter": "(a=b)(c=d)"}, "is not one filter"),
        ({"user_filter": "(a=b))"}, "is not one filter"),
        ({"groups": ["hpc"]}, "is not a list of texts"),
        ({"timeout_s": 0}, "from 1 to 12"),
        ({"min_uid_number": 0}, "is not a whole number"),
        ({"account_attribute": "uid)"}, "may hold only"),
        ({"search_filter": "(uid={account})"}, "there is no key 'search_filter'"),
        ({"verify": False}, "there is no key 'verify'"),
        ({"starttls": False}, "there is no key 'starttls'"),
    ],
)
def test_faults_in_settings(change: dict[str, Any], problem: str) -> None:
    """Each is named; certificates cannot be left unverified, and nothing goes in clear."""
    body = {key: value for key, value in (GOOD | change).items() if value is not None}
    _, problems = read(body)
    assert any(problem in what for _, what in problems), problems


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"search_filter": "(uid=alice)"}, "must hold {account}"),
        ({"search_filter": "(uid={account}"}, "is not one filter"),
        ({"search_filter": "(uid={account}{0})"}, "no other braces"),
        ({"search_password_file": None}, "is missing"),
        ({"search_dn": None}, "is missing"),
        ({"search_password": "x"}, "there is no key 'search_password'"),
    ],
)
def test_faults_in_settings_for_a_search(change: dict[str, Any], problem: str) -> None:
    """A password stands in a file of its own, never among the settings."""
    _, problems = read({key: value for key, value in (SEARCH | change).items() if value is not None})
    assert any(problem in what for _, what in problems), problems


@given(st.text(alphabet="()a\\={}", max_size=12))
def test_what_is_taken_for_a_filter_has_matching_parentheses(text: str) -> None:
    """Whatever stands there, what is accepted is one pair of parentheses around matching ones."""
    _, problems = read(GOOD | {"user_filter": text})
    if not problems:
        assert text.startswith("(") and text.endswith(")") and text.count("(") == text.count(")")
