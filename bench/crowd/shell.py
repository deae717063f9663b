"""Reads what hpchub's runner sends to a login shell, and knows the fixed commands of a server's folder."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Sequence

from hpchub.bridge import folder

_OCTAL = re.compile(r"\\0([0-7]{3})")
_MARKER = re.compile(r"printf '%s\\n' (hpchub-[0-9a-f]{32}); ")

# The shell texts of hpchub/bridge/folder.py, by what they do.
FOLDER_COMMANDS = {
    folder.prepare_command("", {}).argv[2]: "prepare",
    folder.add_command("", {}).argv[2]: "add",
    folder.outcome_command("").argv[2]: "outcome",
    folder.owner_argv("")[2]: "owner",
    folder.start_on_login_node_command("").argv[2]: "start",
    folder.end_command("").argv[2]: "end",
}


def read_text(text: str) -> tuple[str, list[str]]:
    """The marker and the argv in the text that `hpchub.ssh.runner.remote_text` made.

    Raises:
        ValueError: It is nothing of hpchub's.
    """
    script = shlex.split(text)[-1]
    decoded = _OCTAL.sub(lambda found: chr(int(found[1], 8)), script)
    decoded = decoded.encode("latin-1").decode("utf-8", "surrogateescape")
    marker = _MARKER.match(decoded)
    _, found, command = decoded.partition("; exec ")
    if marker is None or not found:
        raise ValueError(f"not a command of hpchub's: {decoded[:80]!r}")
    return marker[1], shlex.split(command)


def folder_command(argv: Sequence[str]) -> tuple[str, str]:
    """Which of a folder's commands this is, and its argument; two empty texts where it is none."""
    if len(argv) == 5 and tuple(argv[:2]) == ("/bin/sh", "-c") and argv[3] == "hpchub":
        return FOLDER_COMMANDS.get(argv[2], ""), argv[4]
    if argv[0] == "cat":
        return "cat", argv[1].rpartition("/")[0]
    if argv[0] == "find":
        return "keep log", argv[1]
    if argv[0] == "rm":
        return "remove", argv[-1]
    return "", ""


def query_argv(what: str, items: str) -> tuple[str, ...]:
    """What the forced command of hpchub/remote/slurm_query.py runs."""
    formats = {"status": "%i %T %B %r", "times": "%i %T %S %e", "pending": "%i %P %Q"}
    if what == "history":
        return "sacct", f"--jobs={items}"
    form = "--format=" + formats[what].replace(" ", "\x1f")
    if what == "pending":
        return "squeue", "--states=PENDING", form
    return "squeue", "--states=all", f"--jobs={items}", form


def untar(data: bytes) -> dict[str, bytes]:
    """The files in an archive that hpchub sent."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
