"""`hpchub doctor`: the verb, the password, and the order of the checks."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hpchub.bridge.client import BridgeClient
from hpchub.bridge.seal import Seal
from hpchub.bridge.sessions import Sessions
from hpchub.bridge.settings import BridgeSettings, load_settings
from hpchub.bridge.store import Store
from hpchub.core.cluster import Cluster
from hpchub.core.cluster_file import load_clusters
from hpchub.core.secret import Secret
from hpchub.doctor.cluster_side import ClusterChecks
from hpchub.doctor.hub_side import Person, check_hub_side, check_hubs_login
from hpchub.doctor.job import log_in_to_bridge, try_job
from hpchub.doctor.level_probe import LevelProbe
from hpchub.doctor.report import Report
from hpchub.doctor.revocation_probe import check_revocation
from hpchub.doctor.sshd_command import configure_sshd, run_sshd
from hpchub.doctor.sshd_facts import SCRIPT
from hpchub.errors import InvalidRequest
from hpchub.prctl import forbid_dumps
from hpchub.signer.client import SignerClient
from hpchub.ssh.key_agent import KeyAgent
from hpchub.ssh.pool import Pool

_LONGEST_PASSWORD = 4096


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments. The password is none of them: others could read it there."""
    parser.add_argument("--config", type=Path, help="bridge.toml")
    parser.add_argument("--user", help="a test account that may log in")
    parser.add_argument(
        "--cluster", action="append", default=[], metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--job", action="store_true", help="start a small job too, through the running bridge"
    )
    parser.add_argument(
        "--logged-in",
        action="store_true",
        help="instead of a password: try a job with the login that the user has at the hub, in a browser",
    )
    parser.add_argument(
        "--revoke",
        action="store_true",
        help="at the end, revoke this very login and wait until the login nodes refuse it",
    )
    parser.add_argument("--strict", action="store_true", help="what the strict level lacks is a failure too")
    parser.add_argument("--json", action="store_true", help="print it all as JSON, at the end")
    parser.add_argument(
        "--password-fd", type=int, metavar="N", help="read the password from this file descriptor"
    )
    configure_sshd(parser)


def run(args: argparse.Namespace) -> int:
    """1 where a check failed, or with `--strict` something is missing; else 0."""
    if args.sshd_script:
        print(SCRIPT.read_text(encoding="utf-8"), end="")
        return 0
    report = Report((lambda line: None) if args.json else (lambda line: print(line, flush=True)))
    if args.sshd is not None:
        run_sshd(args, report)
    else:
        _run_all(args, report)
    print(report.as_json() if args.json else report.summary())
    return 1 if report.failed or (args.strict and report.missing) else 0


def _run_all(args: argparse.Namespace, report: Report) -> None:
    if args.config is None or args.user is None:
        raise InvalidRequest("--config and --user are needed.", "With --sshd neither is.")
    forbid_dumps()
    settings = load_settings(args.config)
    clusters = load_clusters(settings.clusters)
    unknown = [name for name in args.cluster if name not in clusters]
    if unknown:
        raise InvalidRequest(
            f"There is no cluster {unknown[0]!r} in {settings.clusters}.",
            f"There are: {', '.join(clusters)}.",
        )
    chosen = {name: one for name, one in clusters.items() if not args.cluster or name in args.cluster}
    if args.logged_in and (args.revoke or args.password_fd is not None):
        raise InvalidRequest(
            "--logged-in goes with neither --revoke nor --password-fd.", "It is the user's own login."
        )
    password = None if args.logged_in else _read_password(args.user, args.password_fd)
    person = Person(args.user, password)
    asyncio.run(check_all(report, settings, chosen, person, with_job=args.job, revoke=args.revoke))


async def check_all(
    report: Report,
    settings: BridgeSettings,
    clusters: dict[str, Cluster],
    person: Person,
    *,
    with_job: bool,
    revoke: bool = False,
) -> None:
    """Every check in its order; those that cannot work after one that failed are left out."""
    signer = SignerClient(settings.signer_socket)
    bridge = BridgeClient(settings.socket)
    agent = KeyAgent(settings.agent_socket)
    if not await report.check("key agent", _answers(agent)):
        return
    if person.password is None:
        if await check_hubs_login(report, signer, bridge, person):
            report.note("login nodes", "not tried one by one, because the doctor has no login of its own")
            await _try_jobs(report, bridge, clusters, person)
        return
    # A store of its own: the bridge's must go on with the person's own session.
    with TemporaryDirectory(prefix="hpchub-doctor-") as folder:
        store = Store(f"sqlite:///{folder}/doctor.sqlite", await Seal.of(agent))
        store.upgrade()
        sessions = Sessions(signer, agent, store)
        try:
            if not await check_hub_side(report, signer, bridge, sessions, person):
                return
            async with Pool(clusters, sessions) as pool:
                for cluster in clusters.values():
                    level = LevelProbe(report, sessions, cluster, person.name)
                    await ClusterChecks(report, pool, cluster, person.name, level).run()
            if revoke:
                await check_revocation(report, signer, sessions, clusters.values(), person.name)
        finally:
            await sessions.close(person.name)
            store.close()
    if with_job and await report.check("job login", log_in_to_bridge(signer, bridge, person)):
        await _try_jobs(report, bridge, clusters, person)


async def _try_jobs(
    report: Report, bridge: BridgeClient, clusters: dict[str, Cluster], person: Person
) -> None:
    for cluster in clusters.values():
        if cluster.compute is not None:
            await report.check(f"{cluster.name} job", try_job(bridge, cluster, person))


async def _answers(agent: KeyAgent) -> str:
    return f"{agent.socket} answers; it holds {len(await agent.held())} keys"


def _read_password(user: str, descriptor: int | None) -> Secret:
    """From the descriptor, else from the terminal, where it is not shown.

    Raises:
        InvalidRequest: There is neither, or what came is no line.
    """
    if descriptor is None:
        if not sys.stdin.isatty():
            raise InvalidRequest("There is no terminal to ask for the password.", "Use --password-fd.")
        return Secret(getpass.getpass(f"Password of {user}: "))
    try:
        with os.fdopen(descriptor, "rb") as stream:
            typed = stream.read(_LONGEST_PASSWORD).decode().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"File descriptor {descriptor} holds no password: {error}.") from error
    if not typed or "\n" in typed:
        raise InvalidRequest(f"File descriptor {descriptor} holds no password: it must be one line.")
    return Secret(typed)
