"""Kernels: the ones that a site ships or a person registers, checked, here or in a job on a compute node.

`%load_ext hpchub.kernels` gives a notebook the line magic `%kernels`, which is `hpchub kernels`.
"""

from __future__ import annotations

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext hpchub.kernels` calls, with IPython's shell."""
    from hpchub.kernels.command import magic

    shell.register_magic_function(magic, "line", "kernels")
