"""What `hpchub demo exec` takes for itself, and what it leaves to the command."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hpchub.demo import command


@pytest.mark.parametrize(
    ("words", "user", "directory", "expected"),
    [
        ("login1", "", "/here", []),
        ("login1 squeue", "", "/here", ["squeue"]),
        ("login1 -- squeue --user alice", "", "/here", ["squeue", "--user", "alice"]),
        ("login1 --user bob -- squeue --user alice", "bob", "/here", ["squeue", "--user", "alice"]),
        ("login1 --dir /there -- ls --dir -h", "", "/there", ["ls", "--dir", "-h"]),
        ("login1 -- xargs -- ls -- --user x", "", "/here", ["xargs", "--", "ls", "--", "--user", "x"]),
    ],
)
def test_all_after_the_dashes_is_the_command_s(
    words: str, user: str, directory: str, expected: list[str]
) -> None:
    """Options of ours stand before the first `--`; after it they are the command's, `--` too."""
    parser = argparse.ArgumentParser()
    command.configure(parser)
    given = parser.parse_args(["exec", "--dir", "/here", *words.split()])
    asked, argv = command._exec_words(given.words, given.dir)
    assert (asked.host, asked.user, asked.dir, argv) == ("login1", user, Path(directory), expected)
