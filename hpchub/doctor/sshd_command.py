"""`hpchub doctor --sshd`: what root sees on a login node, judged here or there."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from pathlib import Path

from hpchub.bridge.settings import load_settings
from hpchub.core.certificate import PLAIN_PRINCIPAL, is_principal_form, principal_of
from hpchub.core.cluster import Cluster
from hpchub.core.cluster_file import load_clusters
from hpchub.doctor.forwards import forwards_of
from hpchub.doctor.report import Report
from hpchub.doctor.sshd_facts import SCRIPT, SshdFacts, parse_facts
from hpchub.doctor.sshd_level import Expected, judge
from hpchub.errors import InvalidRequest
from hpchub.signer.client import SignerClient

_LONGEST_FACTS = 1024**2
_SCRIPT_LIMIT_S = 60


def configure_sshd(parser: argparse.ArgumentParser) -> None:
    """The arguments of the part that looks at one sshd."""
    group = parser.add_argument_group("one login node's sshd, as root sees it")
    group.add_argument(
        "--sshd", nargs="?", const="", metavar="FILE",
        help="judge what the script printed (- is standard input); without FILE run it here, as root",
    )  # fmt: skip
    group.add_argument("--sshd-script", action="store_true", help="print the script, for sh on a login node")
    group.add_argument("--address", default="", help="the hub's address, where the script runs here")
    group.add_argument(
        "--principal", default="", metavar="FORM",
        help="what certificates call an account, where there is no --config: hpchub:{account}",
    )  # fmt: skip


def run_sshd(args: argparse.Namespace, report: Report) -> None:
    """Judge one sshd.

    Raises:
        InvalidRequest: An argument is missing, or the file is not what the script prints.
        ConfigError: The settings or cluster files cannot be read.
    """
    facts = parse_facts(_gather(args) if args.sshd == "" else _read(args.sshd))
    for finding in judge(facts, asyncio.run(_expected(args, facts))):
        report.add(finding)


def _gather(args: argparse.Namespace) -> str:
    if not args.user or not args.address:
        raise InvalidRequest("To run the script here, --user and --address are needed.")
    done = subprocess.run(
        ["/bin/sh", str(SCRIPT), args.user, args.address],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        timeout=_SCRIPT_LIMIT_S, check=False,
    )  # fmt: skip
    return done.stdout


def _read(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.read(_LONGEST_FACTS)
        with Path(name).open(encoding="utf-8", errors="replace") as stream:
            return stream.read(_LONGEST_FACTS)
    except OSError as error:
        raise InvalidRequest(f"{name} cannot be read: {error.strerror}.") from error


async def _expected(args: argparse.Namespace, facts: SshdFacts) -> Expected:
    """From the hub's own settings where they are here, so that nothing can be mistyped."""
    if args.config is None:
        form = args.principal or PLAIN_PRINCIPAL
        if not is_principal_form(form):
            raise InvalidRequest(
                f"{form!r} is no form of a principal.", "Write hpchub:{account}, for example."
            )
        return Expected(principal=principal_of(form, facts.user))
    settings = load_settings(args.config)
    cluster = _the_cluster(load_clusters(settings.clusters), args.cluster)
    signer = SignerClient(settings.signer_socket)
    form = args.principal or cluster.principal or (await signer.principals())[0]
    return Expected(
        principal=principal_of(form, facts.user),
        authority=await signer.ca_public_key(),
        forwards=forwards_of(cluster),
    )


def _the_cluster(clusters: dict[str, Cluster], names: list[str]) -> Cluster:
    chosen = names or list(clusters)
    if len(chosen) != 1 or chosen[0] not in clusters:
        raise InvalidRequest(
            "Whose login node is it?", f"Name one cluster with --cluster: {', '.join(clusters)}."
        )
    return clusters[chosen[0]]
