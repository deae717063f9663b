"""What the hub refuses at once reaches people through the proxy."""

from __future__ import annotations

import requests
from hub.harness import RunningHub


def test_the_proxy_hands_on_what_is_refused_at_once(hub: RunningHub) -> None:
    """The hub's refusal of a form without its token, each time, and never an answer of the proxy's own."""
    form = {"username": "alice", "password": "wrong"}
    with requests.Session() as browser:
        answers = [browser.post(f"{hub.url}/hub/login", data=form, timeout=10) for _ in range(30)]
    assert {answer.status_code for answer in answers} == {403}
