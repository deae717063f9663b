"""`%slurm`: what can be set, and to what; and where `%slurm connect` leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slurm_magics.errors import SlurmError
from slurm_magics.ssh_config import Target, parse_target

_DISPLAYS = ("frames", "text")
_SECONDS = {"fresh": "fresh_s", "timeout": "timeout_s"}
# Of ssh's options, those that name a way to the host.
_SSH_OPTIONS = frozenset({"-F", "-i", "-l", "-p", "-J", "-o"})


@dataclass(slots=True)
class Settings:
    """What `%slurm` shows and changes."""

    display: str = "frames"
    fresh_s: float = 3.0
    timeout_s: float = 60.0
    templates: str = ""


def read_target(words: Sequence[str]) -> Target:
    """Where `%slurm connect [options of ssh] [USER@]HOST` leads.

    Raises:
        SlurmError: There is no host, or an option that does not belong there.
    """
    options: list[str] = []
    waiting = list(words)
    while waiting and waiting[0].startswith("-"):
        option, *waiting = waiting
        if option[:2] not in _SSH_OPTIONS or (len(option) == 2 and not waiting):
            raise SlurmError(
                f"%slurm connect cannot take {option!r}.", "It takes -F, -i, -l, -p, -J and -o of ssh."
            )
        value = option[2:] or waiting.pop(0)
        options += [option[:2], value]
    if len(waiting) != 1:
        raise SlurmError(
            "%slurm connect needs one host.", "For example: %slurm connect alice@login.cluster.edu"
        )
    return parse_target(waiting[0], options)


def change(settings: Settings, words: Sequence[str], machine: str = "") -> str:
    """Change what the words say, and show all settings, with the name of the machine that is used.

    Raises:
        SlurmError: There is no such setting, or it cannot be that.
    """
    match list(words):
        case []:
            pass
        case ["display", display] if display in _DISPLAYS:
            settings.display = display
        case ["fresh" | "timeout" as name, value]:
            setattr(settings, _SECONDS[name], _seconds(name, value))
        case ["templates", folder]:
            settings.templates = folder
        case _:
            raise SlurmError(
                f"%slurm cannot do {' '.join(words)!r}.",
                "It takes display frames|text, fresh SECONDS, timeout SECONDS, templates FOLDER, "
                "connect HOST, disconnect, or nothing.",
            )
    return (
        f"display    {settings.display}\n"
        f"fresh      {settings.fresh_s:g} s\n"
        f"timeout    {settings.timeout_s:g} s\n"
        f"templates  {settings.templates or '(the usual folders)'}\n"
        f"connected  {machine or '(this machine)'}\n"
    )


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400 or (name == "timeout" and seconds == 0):
        raise SlurmError(f"{text!r} is no number of seconds for {name}.", f"For example: %slurm {name} 10")
    return seconds
