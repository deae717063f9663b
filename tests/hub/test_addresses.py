"""Where a request came from, as far as somebody trustworthy says so."""

from __future__ import annotations

import ipaddress
import json

import pytest
from hub.harness import RunningHub
from hypothesis import given
from hypothesis import strategies as st
from traitlets import TraitError

from hpchub.hub.addresses import client_address
from hpchub.hub.authenticators import HpchubAuthenticator

UNIX = ""


def told(peer: str, forwarded: str, *trusted: str) -> str:
    return client_address(peer, forwarded, [ipaddress.ip_network(text) for text in trusted])


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "expected"),
    [
        # Our own proxy, on its unix socket: what it saw stands last.
        (UNIX, "198.51.100.7", (), "198.51.100.7"),
        (UNIX, "6.6.6.6, 198.51.100.7", (), "198.51.100.7"),
        (UNIX, "6.6.6.6,::ffff:198.51.100.7", (), "198.51.100.7"),
        (UNIX, "6.6.6.6, 2001:db8::7", (), "2001:db8::7"),
        (UNIX, "", (), ""),
        # A web server in front of it, known or not.
        (UNIX, "6.6.6.6, 198.51.100.7, 127.0.0.1", (), "127.0.0.1"),
        (UNIX, "6.6.6.6, 198.51.100.7, 127.0.0.1", ("127.0.0.1",), "198.51.100.7"),
        (UNIX, "6.6.6.6, 198.51.100.7, 192.0.2.5, 127.0.0.1", ("127.0.0.1", "192.0.2.0/24"), "198.51.100.7"),
        (UNIX, "127.0.0.1", ("127.0.0.1",), "127.0.0.1"),
        (UNIX, "198.51.100.7:4711, [::1]:99", ("::1",), "198.51.100.7"),
        # Reached without a proxy: the header is anybody's.
        ("198.51.100.7", "6.6.6.6", (), "198.51.100.7"),
        ("198.51.100.7", "6.6.6.6", ("127.0.0.1",), "198.51.100.7"),
        ("127.0.0.1", "6.6.6.6", (), "127.0.0.1"),
        ("127.0.0.1", "198.51.100.7", ("127.0.0.0/8",), "198.51.100.7"),
        # Nonsense ends the chain where it stands.
        (UNIX, "6.6.6.6, unknown, 127.0.0.1", ("127.0.0.1",), "127.0.0.1"),
        (UNIX, "6.6.6.6, <script>", (), ""),
    ],
)
def test_the_chain(peer: str, forwarded: str, trusted: tuple[str, ...], expected: str) -> None:
    """The header is read from its end, no further than a trusted writer."""
    assert told(peer, forwarded, *trusted) == expected


@given(st.text(alphabet="0123456789abcdef.:,[] x", max_size=60))
def test_nothing_before_the_proxys_own_word_matters(forged: str) -> None:
    """Whatever a browser sends in the header, its address is the one that the proxy appended."""
    assert told(UNIX, f"{forged}, 198.51.100.7") == "198.51.100.7"
    assert told("198.51.100.7", forged) == "198.51.100.7"


@pytest.mark.parametrize("text", ["localhost", "0.0.0.0/0", "::/0", "10.0.0.1/8", ""])
def test_what_cannot_be_trusted(text: str) -> None:
    """No name, not everybody, no address with host bits: the hub does not start with those."""
    with pytest.raises(TraitError, match="trusted_proxies"):
        HpchubAuthenticator(trusted_proxies=[text])


def test_forged_headers_are_ignored(hub: RunningHub) -> None:
    """Through the real proxy: whatever the browser claims, the audit log has the proxy's word."""
    session = hub.session()
    session.headers.update({"X-Forwarded-For": "6.6.6.6", "X-Real-Ip": "6.6.6.6", "Forwarded": "for=6.6.6.6"})
    session.submit_login("alice", "forged")
    lines = (hub.folder / "signer" / "audit.log").read_text().splitlines()
    record = json.loads(lines[-1])
    assert (record["user"], record["outcome"], record["source"]) == ("alice", "refused", "127.0.0.1")
