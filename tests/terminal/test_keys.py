"""What `hpchub login` takes from a hub: a certificate for its own key and for who has confirmed, no other."""

from __future__ import annotations

import time

import asyncssh
import pytest

from hpchub.errors import UnexpectedOutput
from hpchub.terminal.keys import check_certificate, new_key


def certificate(public_key: str, *principals: str) -> str:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    made = authority.generate_user_certificate(
        asyncssh.import_public_key(public_key),
        "key id",
        principals=principals,
        valid_before=time.time() + 600,
    )
    return made.export_certificate().decode().strip()


@pytest.mark.parametrize("principal", ["alice", "hpchub:alice", "alice+laptop"])
def test_a_site_may_call_the_account_otherwise(principal: str) -> None:
    """A form of principals of the site's is as good as the account's own name."""
    _, line = new_key("laptop")
    assert 0 < check_certificate(certificate(line, principal), line, "alice") <= 600


@pytest.mark.parametrize(
    "principals", [(), ("bob",), ("malice",), ("hpchub:bob",), ("alice", "bob"), ("alice*",)]
)
def test_a_certificate_for_others_is_refused(principals: tuple[str, ...]) -> None:
    """Nobody else's, nobody's at all, and not for two."""
    _, line = new_key("laptop")
    with pytest.raises(UnexpectedOutput, match="another key, account or time"):
        check_certificate(certificate(line, *principals), line, "alice")
