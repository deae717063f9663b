"""Who does not get in, who gets no server, and what they are told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.demo import Demo
from support.hub import HubSession
from support.servers import ServerOf
from support.slurm import jobs_of

pytestmark = pytest.mark.live


def _audit(demo: Demo) -> list[dict[str, Any]]:
    path = Path(demo.info["logs"]) / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@contextmanager
def _locked_at_the_hub(demo: Demo, user: str) -> Iterator[None]:
    """An account with a `!` before its hash in the signer's password file."""
    path = demo.directory / "hub" / "passwords"
    before = path.read_text()
    path.write_text(before.replace(f"{user}:", f"{user}:!"))
    try:
        yield
    finally:
        path.write_text(before)


def _refused_page(demo: Demo, user: str, password: str) -> tuple[int, str]:
    with HubSession(demo.url) as session:
        answer = session.submit_login(user, password)
        assert session.get("hub/home", allow_redirects=False).status_code == 302
        assert not [cookie.name for cookie in session.cookies if cookie.name == "jupyterhub-hub-login"]
    # What differs between two visits of the same page: tokens, the scripts' nonce, and the name typed.
    text = re.sub(r'(name="_xsrf"[^>]*value=|_xsrf:? *"?=?|nonce=)"[^"]*"', "", answer.text)
    text = re.sub(r"_xsrf=[^\"&]*", "", text).replace(user, "NAME") if user else text
    return answer.status_code, re.sub(r"xsrf_token: \"[^\"]*\"", "", text)


def test_wrong_logins_look_alike(demo: Demo) -> None:
    """A wrong password, an unknown user and a locked account get the same page; nothing is minted."""
    before = len(_audit(demo))
    pages = {
        "wrong password": _refused_page(demo, "bob", "wrong"),
        "empty password": _refused_page(demo, "bob", ""),
        "unknown user": _refused_page(demo, "nobodyhere", demo.users["bob"]),
        "system account": _refused_page(demo, "root", "root"),
        "unsafe name": _refused_page(demo, "bob;id", demo.users["bob"]),
        "another's password": _refused_page(demo, "bob", demo.users["alice"]),
    }
    with _locked_at_the_hub(demo, "finn"):
        pages["locked"] = _refused_page(demo, "finn", demo.users["finn"])
    status, page = pages["wrong password"]
    assert status == 403
    assert "Invalid username or password" in page
    for why, shown in pages.items():
        assert shown == (status, page), why
    new = _audit(demo)[before:]
    assert {entry["outcome"] for entry in new} == {"refused"}
    assert {entry["event"] for entry in new} == {"login"}
    assert len(new) >= len(pages) - 1
    assert not [entry for entry in new if entry["serial"] or entry["grant_id"]]


@pytest.mark.parametrize(
    ("user", "placement", "words"),
    [
        ("carol", "compute", ["carol", "no account", "association"]),
        ("dora", "compute", ["dora", "home folder is not writable", "Permission denied"]),
        ("dora", "login", ["dora", "home folder is not writable"]),
        ("jana", "compute", ["jana", "home folder is full", "No space left"]),
        ("jana", "login", ["jana", "home folder is full"]),
        ("finn", "compute", ["finn", "login shell"]),
        ("finn", "login", ["finn", "login shell"]),
        ("gina", "compute", ["gina", "no such account", "locked"]),
        ("gina", "login", ["gina", "no such account", "locked"]),
        ("ivo", "compute", ["ivo", "no such account", "locked"]),
    ],
)
def test_account_troubles(
    demo: Demo, server_of: ServerOf, user: str, placement: str, words: list[str]
) -> None:
    """What is wrong with an account is said in the answer, with its owner's name, and no job comes of it."""
    server = server_of(user)
    status, message = server.refusal(placement=placement)
    assert status in {409, 202}, message
    assert not [word for word in words if word not in message], message
    assert not server.model()
    assert jobs_of(demo, user) == {}


def test_no_association_but_a_login_node(server_of: ServerOf) -> None:
    """carol, whom the scheduler does not know, still gets a server on a login node."""
    server = server_of("carol").start(placement="login")
    assert server.run("import socket; print(socket.gethostname())") in {"login1", "login2"}


def test_troubles_do_not_stay(demo: Demo, server_of: ServerOf) -> None:
    """Once a trouble is mended the next start works: dora's home is hers again."""
    server = server_of("dora")
    assert "not writable" in server.refusal(placement="login")[1]
    demo.exec("login1", ["chown", "dora:dora", "/home/dora"], check=True)
    try:
        server.start(placement="login")
        server.stop()
    finally:
        demo.exec("login1", ["rm", "-rf", "/home/dora/.hpchub"], check=True)
        demo.exec("login1", ["chown", "root:root", "/home/dora"], check=True)
