"""Braces in lines and cells: Python's where they can be, the shell's where they cannot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_magics import SlurmError
from slurm_magics.words import fill, split_words, take_flag, take_option

NAMES = {"rate": 0.125, "paths": ["a b", "c"], "n": 3, "a": 1, "b": 2, "x": {"k": "v"}, "text": "{n}"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{rate} {rate:.2f} {n!r:>3}", "0.125 0.12   3"),
        ("{rate * 2} {n + 1:03d} {2 ** n}", "0.25 004 8"),
        ("{paths[0]} {paths[-1].upper()} {len(paths)}", "a b C 2"),
        ("{x['k']} {x.get('z', 'no')} {', '.join(paths)}", "v no a b, c"),
        ("{[p for p in paths]} {max(n, 5)} {n if n > 2 else 0}", "['a b', 'c'] 5 3"),
        ("{rate:.{n}f}", "0.125"),
        ("{{n}} {{n:.2f}}", "{n} {n:.2f}"),
        ("{text}", "{n}"),
    ],
)
def test_expressions_are_filled_in(text: str, filled: str) -> None:
    """As IPython fills them in; what comes in is not looked at again."""
    assert fill(text, NAMES) == filled


@pytest.mark.parametrize(
    "text",
    [
        "${n} $n \\{n} ${{n}}",
        "awk '{print $1}' {nobody} {n + nobody} {} {1..5} {a,b} file{1,2}.txt",
        "f() { echo hi; }; { exit 1; }; { n } {{ n }} { n} {n }",
        "int main() { return 0; }\nfor (;;) { n\n}",
        '{"n": 3} {len} {print} { {{} }',
        "{{nobody}} {% if n %} {# n #}",
    ],
)
def test_what_is_the_shells_stays(text: str) -> None:
    """Also where a name in it is one of the notebook's."""
    assert fill(text, NAMES) == text


@given(st.text("{}$\\ nab,:!'\"[]()\n", max_size=30))
def test_any_text_is_filled_or_refused(text: str) -> None:
    """Never a failure other than ours."""
    try:
        assert isinstance(fill(text, NAMES), str)
    except SlurmError as error:
        assert "cannot be filled in" in error.message


@pytest.mark.parametrize("text", ["{n.nothing}", "{paths[9]}", "{n:zz}", "{n / 0}"])
def test_what_fails_is_said(text: str) -> None:
    """With Python's own words."""
    with pytest.raises(SlurmError, match="cannot be filled in"):
        fill(text, NAMES)


def test_a_value_stays_one_word() -> None:
    """Quotes that hold a field together are the shell's; a home folder is put in place of ~."""
    words = split_words("-o '{paths[0]} x' {', '.join(paths)} ~/a", NAMES, lambda word: f"/home{word[1:]}")
    assert words == ["-o", "a b x", "a b, c", "/home/a"]
    assert split_words("{x['k']}{n} 'un{n}'", NAMES, str) == ["v3", "un3"]


def test_what_is_for_another_program_is_left_to_it() -> None:
    """Behind `--` nothing is ours: `%srun -- python train.py --as x`."""
    words = ["--as=job", "--wait", "--", "x.py", "--as", "--wait"]
    assert take_option(words, "as") == (["--wait", "--", "x.py", "--as", "--wait"], "job")
    assert take_flag(words, "--wait") == (["--as=job", "--", "x.py", "--as", "--wait"], True)
    assert take_flag(words[2:], "--wait") == (words[2:], False)
