"""The nonce that binds a provider's answer to a key."""

from __future__ import annotations

import pytest

from hpchub.core.login_nonce import login_nonce, new_salt

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAvKHx6Syrr3FjfG3ByX69yfD/EnBSJIhCsKkFD+6jJ"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAvKHx6Syrr3FjfG3ByX69yfD/EnBSJIhCsKkFD+6jK"


def test_of_key_and_salt_alone() -> None:
    """Another key or salt is another nonce; a comment or line end is none of the key's."""
    salt = "0" * 64
    nonce = login_nonce(KEY, salt)
    assert nonce == "EV0cwjulfae1ntsiUUoFKZAEt3f-vQYW7U_ub6ur_xs"
    assert login_nonce(f"{KEY} a comment\n", salt) == nonce
    assert (
        len({nonce, login_nonce(OTHER, salt), login_nonce(KEY, "1" * 64), login_nonce(KEY, new_salt())}) == 4
    )


@pytest.mark.parametrize("salt", ["", "0" * 63, "0" * 65, "0" * 63 + "G", "0" * 64 + "\n", "é" * 64])
def test_salts_that_are_none(salt: str) -> None:
    """Only 256 bits as `new_salt` writes them."""
    with pytest.raises(ValueError, match="64 hexadecimal"):
        login_nonce(KEY, salt)


@pytest.mark.parametrize("key", ["", "ssh-ed25519", "ssh-ed25519 !!!"])
def test_keys_that_are_none(key: str) -> None:
    """Anything but a line with a key."""
    with pytest.raises(ValueError):
        login_nonce(key, "0" * 64)
