"""The hub's port on 127.0.0.1: one demo's alone, from before it boots until it has ended."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from hpchub.errors import SiteError

_PREFERRED = 8000
_ANY = 0
_TRIES = 20


@contextmanager
def claimed_port(wanted: int | None) -> Iterator[int]:
    """The port asked for, else 8000, else whichever the kernel gives; 0 asks for the kernel's choice.

    The proxy listens there only seconds later. Until the block ends, no other demo of this machine is
    given the port.

    Raises:
        SiteError: The port is taken, or is another demo's.
    """
    choices = [wanted] if wanted else [_ANY] * _TRIES
    if wanted is None:
        choices.insert(0, _PREFERRED)
    refusal: OSError | None = None
    for choice in choices:
        with socket.socket(socket.AF_UNIX) as claim:
            try:
                port = _free(choice)
                # An abstract name, with no file: it counts in the same network namespace as the port, one
                # process has it at a time, and the kernel gives it back when that process ends.
                claim.bind(f"\0hpchub-demo-port-{port}")
            except OSError as error:
                refusal = error
                continue
            yield port
            return
    raise SiteError(
        f"Port {wanted or _PREFERRED} of 127.0.0.1 is taken: {refusal}", "Choose another with --port."
    ) from refusal


def _free(choice: int) -> int:
    """The port, or one that the kernel chooses. OSError where somebody listens on it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", choice))
        return int(probe.getsockname()[1])
