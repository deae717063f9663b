"""Texts for JupyterLab's dialog, which breaks no line."""

from __future__ import annotations

import pytest

from hpchub.errors import StartFailed
from hpchub.kernels.telling import in_lines


def test_sentences_are_in_lines_and_commands_stay_whole() -> None:
    """The hint stands apart; a command in it can be copied, however long; no word is cut."""
    command = f"/home/{'a' * 60}/env/bin/python3 -m pip install ipykernel"
    message = f"The kernel cannot start: ipykernel is missing in /home/{'a' * 60}/env."
    with pytest.raises(StartFailed) as raised, in_lines():
        raise StartFailed(message, command)
    first, second, empty, last = str(raised.value).split("\n")
    assert (f"{first} {second}", empty, last) == (message, "", command)
    assert max(len(first), len(second)) <= 90
