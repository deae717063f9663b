"""`--job`: a small job from submission to an answering notebook, through the running bridge."""

from __future__ import annotations

import asyncio
import secrets
import time

from hpchub.bridge.client import BridgeClient
from hpchub.core.cluster import Cluster, Placement
from hpchub.core.server import Phase, ServerView
from hpchub.doctor.hub_side import Person, log_in
from hpchub.errors import SchedulerUnavailable, StartFailed
from hpchub.signer.client import SignerClient

_WAIT_S = 20.0
_LIMIT_S = 600.0
_SERVER_NAME = "hpchub-doctor"


async def log_in_to_bridge(signer: SignerClient, bridge: BridgeClient, person: Person) -> str:
    """Give the running bridge a session of the person, as the hub does at a login."""
    key_id, public_key = await bridge.new_key()
    login = await log_in(signer, person, public_key)
    await bridge.open_session(person.name, key_id, login.grant)
    return "the bridge has a session"


async def try_job(bridge: BridgeClient, cluster: Cluster, person: Person) -> str:
    """One job with the cluster's defaults and one CPU; it is stopped whatever became of it.

    Raises:
        StartFailed: It ended before the notebook answered.
        SchedulerUnavailable: It waited in the queue for ten minutes.
    """
    began = time.monotonic()
    base_url = f"/user/{person.name}/{_SERVER_NAME}/"
    view = await bridge.start(
        user=person.name,
        server_name=_SERVER_NAME,
        options={"cluster": cluster.name, "placement": Placement.COMPUTE.value, "cpus": "1"},
        environ=_environ(person.name, base_url),
        base_url=base_url,
    )
    try:
        view = await _until_settled(bridge, view, began + _LIMIT_S)
    finally:
        await bridge.stop(view.id)
    if view.phase is not Phase.READY:
        raise view.error or StartFailed(f"Job {view.job_id} ended before its notebook answered.")
    took_s = time.monotonic() - began
    return f"job {view.job_id} ran on {view.node}, and its notebook answered after {took_s:.1f} s"


async def _until_settled(bridge: BridgeClient, view: ServerView, deadline: float) -> ServerView:
    after = 0
    while view.phase not in {Phase.READY, Phase.ENDED}:
        if time.monotonic() > deadline:
            raise SchedulerUnavailable(
                f"Job {view.job_id} is {view.native_state or view.phase} after {_LIMIT_S / 60:.0f} minutes.",
                "Try again when the queue is shorter.",
            )
        async with asyncio.timeout(2 * _WAIT_S):
            view, _, after = await bridge.events(view.id, after, _WAIT_S)
    return view


def _environ(user: str, base_url: str) -> dict[str, str]:
    """What JupyterHub gives a server, without a token that would let it do anything at the hub."""
    return {
        "JUPYTERHUB_API_TOKEN": secrets.token_hex(16),
        "JUPYTERHUB_API_URL": "http://hub/hub/api",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": f"jupyterhub-user-{user}-{_SERVER_NAME}",
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{base_url}oauth_callback",
        "JUPYTERHUB_SERVER_NAME": _SERVER_NAME,
        "JUPYTERHUB_SERVICE_PREFIX": base_url,
        "JUPYTERHUB_SERVICE_URL": "http://hub/",
        "JUPYTERHUB_USER": user,
    }
