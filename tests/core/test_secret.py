"""hpchub.core.secret"""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.secret import Secret

CANARY = "canary-5f1d"


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format, lambda secret: f"{[secret]}"])
def test_a_secret_does_not_show_itself(show: object) -> None:
    """No usual way of turning it into text gives it away."""
    assert CANARY not in show(Secret(CANARY))  # type: ignore[operator]


@pytest.mark.parametrize("store", [pickle.dumps, copy.deepcopy, hash, vars])
def test_a_secret_is_not_stored(store: object) -> None:
    """It cannot be pickled, copied, hashed, or listed by its attributes."""
    with pytest.raises(TypeError):
        store(Secret(CANARY))  # type: ignore[operator]


@given(st.text(st.characters(), max_size=8), st.text(st.characters(), max_size=8))
def test_secrets_compare_as_their_texts(one: str, other: str) -> None:
    """Equality is that of the texts, also of texts that UTF-8 cannot hold; never equal to a plain text."""
    assert (Secret(one) == Secret(other)) is (one == other)
    assert Secret(one).reveal() == one
    assert Secret(one) != one
