"""One question to a child process: JSON on its standard input, JSON as the last line of its output.

Checks that need a C library or a server far away are asked so: the child holds no key, may crash or
hang, and nothing of the person's is in its arguments or environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpchub.errors import RemoteError, SiteError


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes, no, or None where it could not be told; and the account, or the reason."""

    ok: bool | None
    said: str


def ask_child(child: Path, question: Mapping[str, object], timeout_s: float) -> Answer:
    """What a child says, run by its file's name in an isolated interpreter. Blocks.

    Raises:
        RemoteError: It did not answer in time, and was killed.
        SiteError: It could not be run, or answered with something else.
    """
    try:
        done = subprocess.run(  # nothing of the person's in argv
            [sys.executable, "-I", str(child)],
            input=json.dumps(question).encode(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env={"LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            cwd="/",
        )
        # The last line: a library may have printed lines of its own before it.
        answer = json.loads(done.stdout.split(b"\n")[-1])
        ok = answer["ok"]
        return Answer(None if ok is None else ok is True, str(answer["said"]))
    except subprocess.TimeoutExpired:
        # Not chained: the exception carries what went in.
        raise RemoteError("The site's login check did not answer in time.", "Try again later.") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SiteError("The site's login check does not work.", "Tell the site's staff.") from error
