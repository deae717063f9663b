"""Who may call the signer, and for what: accounts of this machine, and machines by their certificates.

Root and the signer's own account may do everything. Others have a role, and each role its own part of the
API: the hub proves who people are, the bridge mints, staff take back. What is in no role's part is for root
and the signer's own account alone.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from aiohttp import web

from hpchub.core.toml_table import Table
from hpchub.errors import NotAllowed
from hpchub.local_api.accounts import read_group, read_uids
from hpchub.local_api.sockets import peer_uid
from hpchub.local_api.tls import TlsListen, peer_names, read_listen

_log = logging.getLogger(__name__)

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


class Role(StrEnum):
    """What a caller is there for."""

    HUB = "hub"
    BRIDGE = "bridge"
    STAFF = "staff"


_ALL = frozenset(Role)
_HUB, _BRIDGE, _STAFF = frozenset({Role.HUB}), frozenset({Role.BRIDGE}), frozenset({Role.STAFF})

RIGHTS: dict[str, frozenset[Role]] = {
    "/v1/health": _ALL,
    "/v1/ready": _ALL,
    "/v1/metrics": _ALL,
    "/v1/ca": _ALL,
    "/v1/grants": _HUB,
    "/v1/oidc": _HUB,
    "/v1/oidc/grants": _HUB,
    "/v1/spnego/grants": _HUB,
    "/v1/second-factor": _HUB,
    "/v1/second-factor/offers": _HUB,
    "/v1/second-factor/enrolments": _HUB,
    "/v1/second-factor/challenges": _HUB,
    "/v1/second-factor/tickets": _HUB,
    "/v1/second-factor/held": _HUB,
    "/v1/second-factor/key-offers": _HUB,
    "/v1/second-factor/keys": _HUB,
    "/v1/second-factor/removals": _HUB,
    "/v1/second-factor/recovery-codes": _HUB,
    "/v1/certificates": _BRIDGE,
    "/v1/certificate-batches": _BRIDGE,
    "/v1/terminals": _BRIDGE,
    "/v1/terminals/holder": _HUB,
    "/v1/terminals/logout": _HUB,
    "/v1/query-certificates": _BRIDGE,
    "/v1/logout": _BRIDGE,
    "/v1/ends": _BRIDGE,
    "/v1/disconnected": _BRIDGE,
    "/v1/krl": _HUB | _STAFF,
    "/v1/revocations": _STAFF,
    "/v1/revocations/undo": _STAFF,
    "/v1/sessions": _STAFF,
}
"""Each path of the API, and the roles that it is for. One that is not here is for no role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """User ids by role; `group` may reach the socket. `names` are those in certificates, over TLS."""

    uids: dict[Role, frozenset[int]] = field(default_factory=dict)
    group: int | None = None
    listen: TlsListen | None = None
    names: dict[Role, frozenset[str]] = field(default_factory=dict)


def read_callers(top: Table, folder: Path) -> Callers:
    """The tables `[callers]` and `[remote]`; nobody else's where they are left out."""
    table = top.table("callers")
    group = read_group(table)
    uids = {role: read_uids(table, role.value) for role in Role}
    if any(uids.values()) and group is None:
        table.fault("group", "is missing: write the group of those who may reach the socket")
    table.finish()
    if not top.has("remote"):
        return Callers(uids=uids, group=group)
    remote = top.table("remote")
    listen = read_listen(remote, folder)
    names = {role: frozenset(remote.texts(role.value, _HOST_NAME)) for role in (Role.HUB, Role.BRIDGE)}
    if not any(names.values()):
        remote.fault("", "names nobody: write hub and bridge, the names in their certificates")
    remote.finish()
    return Callers(uids=uids, group=group, listen=listen, names=names)


def admission(callers: Callers) -> Callable[[web.Request], None]:
    """A function that returns where a request may be answered; it raises NotAllowed otherwise."""

    def admit(request: web.Request) -> None:
        connection = request.get_extra_info("socket")
        if connection is None:  # the peer has left
            raise NotAllowed("Who calls cannot be told.")
        if request.get_extra_info("sslcontext") is not None:
            names = peer_names(request.get_extra_info("peercert"))
            roles = {role for role, known in callers.names.items() if known & names}
            who = ",".join(sorted(names)) or "nobody"
        else:
            uid = peer_uid(connection)
            if uid in {0, os.geteuid()}:
                return
            roles = {role for role, known in callers.uids.items() if uid in known}
            who = f"uid {uid}"
        if not roles & RIGHTS.get(request.path, frozenset()):
            _log.warning("api.stranger who=%s path=%s", who, request.path)
            raise NotAllowed("That is not for this caller.")

    return admit
