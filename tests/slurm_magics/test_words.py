"""Braces in lines and cells: Python's where they can be, the shell's where they cannot."""

from __future__ import annotations

import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_magics import SlurmError
from slurm_magics.machine import Local
from slurm_magics.programs import before_program
from slurm_magics.words import fill, split_words


class Unsayable(Exception):
    """Whose words cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no words")


class Unprintable:
    """What cannot be made a text."""

    def __str__(self) -> str:
        raise Unsayable


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


def test_a_value_is_no_home_folder() -> None:
    """A `~` that a value begins with is a part of it; one of nobody's stays, as in a shell."""
    assert split_words("{who}/x ~nobody-here/y", {"who": "~root"}, Local().expanded) == [
        "~root/x",
        "~nobody-here/y",
    ]


@pytest.mark.parametrize("value", ["a\0b", "\ud83d", Unprintable()])
def test_what_no_command_can_be_given_is_said(value: object) -> None:
    """A zero byte, half a character, an object without a text."""
    with pytest.raises(SlurmError, match=r"zero byte|no text|in: Unsayable"):
        split_words("-J {value}", {"value": value}, str)


@pytest.mark.parametrize("text", ["{" * 20_000, "{n" * 20_000, "f() {\n" * 20_000, f"{{n{'+n' * 50_000}}}",
                                  "{n" + "-" * 3000 + "n}", "{" * 300 + "n" + "}" * 300])  # fmt: skip
def test_much_is_read_at_once(text: str) -> None:
    """However deep and long braces are, and whether they close or not."""
    began = time.perf_counter()
    fill(text, NAMES)
    assert time.perf_counter() - began < 20.0, "not for minutes, as where each brace is looked for anew"


def test_other_languages_have_their_own_backslashes() -> None:
    """Python's warnings about them are for its own programs."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = r"""awk '{gsub("\.", "_")}'"""
        assert fill(text, NAMES) == text


@pytest.mark.parametrize(
    ("line", "own"),
    [
        ("srun -n 2 --label ./program --as x", "-n 2 --label"),
        ("sbatch --as job -p cpu --hold run.sh --wait -h", "--as job -p cpu --hold"),
        ("sbatch -W run.sh --wait -h", "-W"),
        ("sbatch -vW --wait run.sh --as x", "-vW --wait"),
        ("srun -W 30 ./program --as x", "-W 30"),
        ("srun -lW 30 --wait 30 ./program --as x", "-lW 30 --wait 30"),
        (
            "srun --bcast --send-libs --immediate --whole ./program --as x",
            "--bcast --send-libs --immediate --whole",
        ),
        ("salloc -I5 -K9 -k ./program --as x", "-I5 -K9 -k"),
        ("srun -lK1 -n 2 ./program --as x", "-lK1 -n 2"),
        ("srun -n2 -lu -N1 -J name -- -x", "-n2 -lu -N1 -J name"),
        ("srun --time=5 --mem 1G --exclusive=user", "--time=5 --mem 1G --exclusive=user"),
        ("srun --unbuf --overl --kill-on ./program --as x", "--unbuf --overl --kill-on"),
        ("sbatch --kill-on yes --requ run.sh --as x", "--kill-on yes --requ"),
        ("srun --par cpu --wai 3 --excl ./program --as x", "--par cpu --wai 3 --excl"),
        ("salloc --com text --no-s --res name ./program", "--com text --no-s --res name"),
        ("srun --as kept -n 1 ./program --as x", "--as kept -n 1"),
        ("srun", ""),
    ],
)
def test_a_program_has_options_of_its_own(line: str, own: str) -> None:
    """What stands behind it is not the magic's."""
    tool, *words = line.split()
    assert words[: before_program(tool, words)] == own.split()
