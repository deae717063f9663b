"""What of a kernelspec, and of Jupyter's variables, goes to the node where the kernel runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

# Jupyter's server names the notebook in it.
NOTEBOOK = "JPY_SESSION_NAME"


def filled(argv: Sequence[str], folder: str) -> list[str]:
    """As Jupyter fills the words in braces, but for the connection file, which is the agent's."""
    program = sys.executable if argv[0] in {"python", f"python{sys.version_info[0]}"} else argv[0]
    return [
        word.replace("{resource_dir}", folder).replace("{prefix}", sys.prefix)
        for word in (program, *argv[1:])
    ]


def to_send(environ: Mapping[str, str], from_spec: Mapping[str, str]) -> dict[str, str]:
    """What of the kernel's variables goes to the node: what kernel.json or the caller added to the server's.

    The job has its own from its login shell; the server's hold tokens, and paths of this node.
    """
    return {
        name: value
        for name, value in environ.items()
        if name in from_spec or name == NOTEBOOK or os.environ.get(name) != value
    }
