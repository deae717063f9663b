"""hpchub.core.slugs"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.slugs import is_safe_account_name, is_scheduler_name, job_name, successor_name

ID = "3f9a2b1c4d5e60718293a4b5c6d7e8f9"


@pytest.mark.parametrize("name", ["alice", "a.b-c_d", "Alice", "_svc", "u2", "a" * 32])
def test_account_names_of_people(name: str) -> None:
    """Dots, dashes, digits, capitals and 32 characters make good account names."""
    assert is_safe_account_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "root",
        "Root",
        "nobody",
        "2u",
        "-a",
        ".a",
        "a.",
        "a..b",
        "a b",
        "a\n",
        "a/b",
        "a,b",
        "ä",
        "a" * 33,
        "*",
        "a$",
    ],
)
def test_names_that_are_no_accounts(name: str) -> None:
    """System accounts, wildcards, separators and what a path or a shell could read are refused."""
    assert not is_safe_account_name(name)


@given(st.text())
def test_scheduler_names_hold_nothing_a_shell_reads(name: str) -> None:
    """Whatever passes as a scheduler's name needs no quoting, and is no option."""
    if is_scheduler_name(name):
        assert re.fullmatch(r"[A-Za-z0-9_.+-]+", name)
        assert not name.startswith(("-", "."))


@given(st.text())
def test_job_names_need_no_quoting(server_name: str) -> None:
    """Any server name gives a short job name of plain characters."""
    assert re.fullmatch(r"hpchub(-[A-Za-z0-9_-]{1,30})?-3f9a2b1c4d5e", job_name(server_name, ID))


def test_job_name_tells_the_server() -> None:
    """A named one carries its name, and each the start of its id."""
    assert job_name("", ID) == "hpchub-3f9a2b1c4d5e"
    assert job_name("gpu-2", ID) == "hpchub-gpu-2-3f9a2b1c4d5e"
    assert job_name("a b/c", ID) == "hpchub-a-b-c-3f9a2b1c4d5e"


@pytest.mark.parametrize(
    ("name", "taken", "expected"),
    [
        ("", {""}, "next"),
        ("", {"", "next"}, "next-2"),
        ("next", {"next"}, ""),
        ("next", {"", "next"}, "next-2"),
        ("train", {"train"}, "train-2"),
        ("train-2", {"train-2"}, "train"),
        ("train-2", {"train", "train-2"}, "train-3"),
        ("x" * 30, {"x" * 30}, "x" * 26 + "-2"),
    ],
)
def test_a_successor_is_named_after_its_server(name: str, taken: set[str], expected: str) -> None:
    """The first name of its stem that no running server has; at most 30 characters, as JupyterHub wants."""
    assert successor_name(name, taken) == expected
