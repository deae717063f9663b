"""The `hpchub` command and its verbs.

Each verb lives in the package it belongs to, in a module with `configure(parser)` and
`run(args) -> int`, and is imported only when it is called: `hpchub check` must start on a machine
that has none of the hub's libraries.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from hpchub.errors import HpchubError

_VERBS = {
    "check": ("hpchub.check", "say what is wrong in cluster files, and where"),
    "signer": ("hpchub.signer.command", "the certificate authority: run it, make its keys, set passwords"),
    "doctor": ("hpchub.doctor.command", "try each cluster hop by hop as one user, and say what to fix"),
    "audit": ("hpchub.audit_command", "search the audit log, and check its chain"),
    "revoke": ("hpchub.revoke", "end what a user, certificate or key may do, and close what is open"),
    "sessions": ("hpchub.sessions", "who is logged in, until when, and what they hold"),
    "status": ("hpchub.status", "a table of servers, connections and tunnels"),
    "login": ("hpchub.terminal.login", "on your own machine: a certificate for ssh, allowed in the browser"),
    "logout": ("hpchub.terminal.logout", "on your own machine: give the certificate back"),
    "token": ("hpchub.terminal.tokens", "on your own machine: make, list and revoke API tokens of the hub"),
    "bridge": ("hpchub.bridge.command", "the process that holds every SSH connection"),
    "kernels": ("hpchub.kernels.command", "install, list, check and remove the kernels that Jupyter offers"),
    "demo": ("hpchub.demo.command", "a real Slurm cluster and a hub on this machine"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Our own errors end in one plain message and exit code 1."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    outer = argparse.ArgumentParser(prog="hpchub", description=__doc__.split("\n\n")[0])
    verbs = outer.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (_, purpose) in _VERBS.items():
        verbs.add_parser(name, help=purpose, add_help=False)
    verb = outer.parse_args(arguments[:1]).verb
    try:
        module = importlib.import_module(_VERBS[verb][0])
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "hpchub":
            raise  # a fault of ours
        # On a cluster, where people install kernels, there are as a rule none of the hub's libraries.
        print(f"hpchub {verb}: {error.name} is not installed here, which it needs.", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(prog=f"hpchub {verb}", description=_VERBS[verb][1])
    module.configure(parser)
    try:
        return int(module.run(parser.parse_args(arguments[1:])))
    except HpchubError as error:
        print(f"hpchub {verb}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
