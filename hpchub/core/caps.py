"""Whether there is place for one more server, by the caps of the cluster file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from hpchub.core.cluster import Caps, Cluster, Placement
from hpchub.errors import TooManyServers

Held = tuple[str, Placement, str, str]
"""A server that counts: its cluster, placement, user and name."""

_WHERE = {Placement.LOGIN: "login nodes of ", Placement.COMPUTE: "compute nodes of "}
_MOST_NAMES = 10


def refuse_beyond_caps(cluster: Cluster, placement: Placement, user: str, servers: Iterable[Held]) -> None:
    """Return where one more server of this user fits.

    Args:
        cluster: Where the server is to run.
        placement: And on which of its nodes.
        user: Whose it is to be.
        servers: Every other server, of everybody and everywhere.

    Raises:
        TooManyServers: A cap is reached; the message names it, the hint says what to do.
    """
    here = [held for held in servers if held[0] == cluster.name]
    on_nodes = [held for held in here if held[1] is placement]
    section = f"placements.{placement}"
    _refuse(cluster, "", "limits", cluster.caps, user, here)
    _refuse(cluster, _WHERE[placement], section, cluster.home(placement).caps, user, on_nodes)


def _refuse(
    cluster: Cluster, where: str, section: str, caps: Caps, user: str, servers: Sequence[Held]
) -> None:
    mine = [name for _, _, owner, name in servers if owner == user]
    place = f"{where}{cluster.title}"
    if caps.servers_per_user and len(mine) >= caps.servers_per_user:
        raise TooManyServers(
            f"You have {_servers(len(mine))} on {place}, the most that one person may have there "
            f"({section}.servers_per_user).",
            f"Stop one of them first: {_named(mine)}.",
        )
    if caps.servers and len(servers) >= caps.servers:
        _full(cluster, place, section, len(servers), mine)


def _full(cluster: Cluster, place: str, section: str, count: int, mine: Sequence[str]) -> NoReturn:
    choices = ["try again later"]
    if mine:
        choices.append(f"stop one of yours first ({_named(mine)})")
    if section != "limits" and len(cluster.placements) > 1:
        choices.append("choose another placement")
    hint = " or ".join(choices)
    raise TooManyServers(
        f"There are {_servers(count)} on {place}, the most that its staff allow ({section}.servers).",
        f"{hint[0].upper()}{hint[1:]}.",
    )


def _servers(count: int) -> str:
    return "1 server" if count == 1 else f"{count} servers"


def _named(names: Sequence[str]) -> str:
    shown = [name or "the default server" for name in sorted(names)[:_MOST_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
