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
from hpchub.doctor.hub_side import Person, check_hub_side
from hpchub.doctor.job import log_in_to_bridge, try_job
from hpchub.doctor.report import Report
from hpchub.errors import InvalidRequest
from hpchub.prctl import forbid_dumps
from hpchub.signer.client import SignerClient
from hpchub.ssh.key_agent import KeyAgent
from hpchub.ssh.pool import Pool

_LONGEST_PASSWORD = 4096


def configure(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments. The password is none of them: others could read it there."""
    parser.add_argument("--config", type=Path, required=True, help="bridge.toml")
    parser.add_argument("--user", required=True, help="a test account that may log in")
    parser.add_argument(
        "--cluster", action="append", default=[], metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--job", action="store_true", help="start a small job too, through the running bridge"
    )
    parser.add_argument(
        "--password-fd", type=int, metavar="N", help="read the password from this file descriptor"
    )


def run(args: argparse.Namespace) -> int:
    """1 where a check failed, 0 where none did."""
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
    person = Person(args.user, _read_password(args.user, args.password_fd))
    report = Report(lambda line: print(line, flush=True))
    asyncio.run(check_all(report, settings, chosen, person, with_job=args.job))
    print(f"{report.failed} failed." if report.failed else "All is well.")
    return 1 if report.failed else 0


async def check_all(
    report: Report, settings: BridgeSettings, clusters: dict[str, Cluster], person: Person, *, with_job: bool
) -> None:
    """Every check in its order; those that cannot work after one that failed are left out."""
    signer = SignerClient(settings.signer_socket)
    bridge = BridgeClient(settings.socket)
    agent = KeyAgent(settings.agent_socket)
    if not await report.check("key agent", _answers(agent)):
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
                    await ClusterChecks(report, pool, cluster, person.name).run()
        finally:
            await sessions.close(person.name)
            store.close()
    computing = [cluster for cluster in clusters.values() if cluster.compute is not None]
    if not with_job or not await report.check("job login", log_in_to_bridge(signer, bridge, person)):
        return
    for cluster in computing:
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
