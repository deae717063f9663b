"""Which port of 127.0.0.1 a demo's hub gets."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from hpchub.demo.port import claimed_port
from hpchub.errors import SiteError


def test_a_taken_port_is_refused_by_name() -> None:
    """The port that was asked for is used or refused, never silently another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SiteError, match=f"Port {port} of 127.0.0.1 is taken"), claimed_port(port):
            pass


def test_demos_that_boot_at_once_get_different_ports() -> None:
    """A port is claimed before anybody listens on it: the next demo gets another, or is refused."""
    with ExitStack() as claims:
        ports = [claims.enter_context(claimed_port(None)) for _ in range(5)]
        assert len(set(ports)) == 5
        for port in ports:
            with pytest.raises(SiteError, match="is taken"), claimed_port(port):
                pass


def test_a_port_is_free_again_afterwards() -> None:
    """The next demo on this machine may have it."""
    with claimed_port(0) as port:
        pass
    with claimed_port(port) as again:
        assert again == port
