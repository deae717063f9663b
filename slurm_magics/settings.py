"""`%slurm`: what can be set, and to what."""

from __future__ import annotations

from collections.abc import Sequence

from slurm_magics.errors import SlurmError
from slurm_magics.session import Settings

_DISPLAYS = ("frames", "text")
_SECONDS = {"fresh": "fresh_s", "timeout": "timeout_s"}


def change(settings: Settings, words: Sequence[str]) -> str:
    """Change what the words say, and show all settings.

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
                "It takes display frames|text, fresh SECONDS, timeout SECONDS, templates FOLDER, or nothing.",
            )
    return (
        f"display    {settings.display}\n"
        f"fresh      {settings.fresh_s:g} s\n"
        f"timeout    {settings.timeout_s:g} s\n"
        f"templates  {settings.templates or '(the usual folders)'}\n"
    )


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400 or (name == "timeout" and seconds == 0):
        raise SlurmError(f"{text!r} is no number of seconds for {name}.", f"For example: %slurm {name} 10")
    return seconds
