"""Values from outside, as messages show them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.shown import shown


@given(st.recursive(st.none() | st.integers() | st.text() | st.binary(), st.lists))
def test_a_short_value_is_its_repr_and_a_long_one_begins_so(value: object) -> None:
    """Whatever it is, it stays short and on one line."""
    text = shown(value)
    assert len(text) <= 62
    assert text.isprintable()
    assert text == repr(value) if len(repr(value)) <= 60 else text[:50] == repr(value)[:50]


def test_a_value_of_any_length_is_cut() -> None:
    """And says so."""
    assert shown("x" * 10**6) == f"'{'x' * 59}…"
