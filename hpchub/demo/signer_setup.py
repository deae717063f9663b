"""Runs several verbs of `hpchub signer` in one process: its libraries take longer to load than its work.

`python -m hpchub.demo.signer_setup CONFIG`, with name and password pairs as JSON on standard input.
Prints the CA's public line; passwords never stand in an argv.
"""

from __future__ import annotations

import io
import json
import sys

from hpchub.cli import main


def set_up(config: str, passwords: dict[str, str]) -> int:
    """Make the keys, print the CA's public line, set every password; the first exit code but 0."""
    for action in ("init", "ca-key"):
        if code := main(["signer", "--config", config, action]):
            return code
    for name, password in passwords.items():
        sys.stdin = io.StringIO(password)
        if code := main(["signer", "--config", config, "set-password", name]):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(set_up(sys.argv[1], json.load(sys.stdin)))
