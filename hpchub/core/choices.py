"""From what a person asked for to what a server gets, checked against the cluster's limits.

The form, the REST API and a link all end here: limits are checked on the server, never only in
the browser. Every refused field is named, with the range that is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpchub.core.cluster import Cluster, Environment, Partition, Placement
from hpchub.core.job import Association, Resources
from hpchub.core.slugs import is_scheduler_name
from hpchub.core.units import parse_count, parse_memory, parse_time, render_memory, render_time
from hpchub.errors import InvalidRequest

OPTION_NAMES = (
    "cluster",
    "placement",
    "partition",
    "account",
    "time",
    "cpus",
    "memory",
    "gpus",
    "environment",
)

_MIN_TIME_S = 60
_MIN_MEMORY = 64 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What one server gets. `resources` is None on a login node."""

    cluster: str
    placement: Placement
    environment: str
    resources: Resources | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> ServerOptions:
        """What `as_dict` wrote."""
        resources = body["resources"]
        return cls(
            cluster=body["cluster"],
            placement=Placement(body["placement"]),
            environment=body["environment"],
            resources=None if resources is None else Resources(**resources),
        )


class _Fields:
    """Reads options one by one and remembers each that is refused."""

    def __init__(self, raw: Mapping[str, object]) -> None:
        self.raw = raw
        self.refused: dict[str, str] = {}

    def text(self, name: str) -> str | None:
        """The option as text; None where it was left out or left empty."""
        value = self.raw.get(name)
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
            value = value[0]  # a form sends lists
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            self.refused[name] = "Give one text or whole number."
            return None
        return str(value)

    def one_of(self, name: str, offered: Sequence[str], default: str) -> str:
        value = self.text(name)
        if value is None:
            value = default
        if value not in offered:
            self.refused[name] = f"{_shown(value)} is not offered. Choose {_listed(offered)}."
        return value

    def amount(
        self,
        name: str,
        parse: Callable[[str], int],
        render: Callable[[int], str],
        bounds: tuple[int, int],
        default: int,
    ) -> int:
        low, high = bounds
        allowed = f"Allowed: {render(low)} to {render(high)}." if high > low else f"Allowed: {render(low)}."
        text = self.text(name)
        if name in self.refused:
            self.refused[name] += f" {allowed}"
        if text is None:
            # The site's default may be more than this partition gives; a person's wish is refused.
            return min(max(default, low), high)
        try:
            value = parse(text)
        except ValueError:
            self.refused[name] = f"{_shown(text)} cannot be read. {allowed}"
            return default
        if not low <= value <= high:
            self.refused[name] = f"{_shown(text)} is out of range. {allowed}"
        return value


def choose(
    clusters: Mapping[str, Cluster],
    raw: Mapping[str, object],
    associations: Mapping[str, Sequence[Association]] | None = None,
) -> ServerOptions:
    """Check options and fill in the cluster's defaults.

    Args:
        clusters: Every cluster the hub knows, by name.
        raw: Options by name (`OPTION_NAMES`), as text, numbers, or a form's one-item lists.
        associations: By cluster, what the person may charge; None or a missing cluster skips
            that check (the caller could not ask, or asks later).

    Raises:
        InvalidRequest: Some field is refused; `fields` says which and why.
    """
    fields = _Fields(raw)
    for name in raw:
        if name not in OPTION_NAMES:
            fields.refused[str(name)] = f"There is no such option. There are {_listed(OPTION_NAMES)}."
    cluster_name = fields.one_of("cluster", list(clusters), next(iter(clusters), ""))
    cluster = clusters.get(cluster_name)
    if cluster is None:
        raise _refusal(fields.refused)

    offered = [placement.value for placement in cluster.placements]
    placement_name = fields.one_of("placement", offered, cluster.defaults.placement.value)
    if placement_name not in offered:
        raise _refusal(fields.refused)
    placement = Placement(placement_name)
    environments = [env.name for env in environments_for(cluster, placement)]
    default_environment = cluster.defaults.environment
    if default_environment not in environments and environments:
        default_environment = environments[0]
    environment = fields.one_of("environment", environments, default_environment)

    resources = None
    if placement is Placement.COMPUTE:
        known = None if associations is None else associations.get(cluster_name)
        resources = _choose_resources(cluster, fields, known)
    if fields.refused:
        raise _refusal(fields.refused)
    return ServerOptions(
        cluster=cluster_name, placement=placement, environment=environment, resources=resources
    )


def environments_for(cluster: Cluster, placement: Placement) -> list[Environment]:
    """The environments that a placement offers, in the file's order."""
    return [env for env in cluster.environments.values() if placement in env.placements]


def accounts_for(associations: Sequence[Association], partition: str) -> list[str]:
    """Accounts that may be charged on a partition, the person's default first."""
    fitting = [a for a in associations if a.partition in {"", partition}]
    fitting.sort(key=lambda association: not association.is_default)
    return list(dict.fromkeys(association.account for association in fitting))


def _choose_resources(
    cluster: Cluster, fields: _Fields, associations: Sequence[Association] | None
) -> Resources | None:
    defaults = cluster.defaults
    name = fields.one_of("partition", list(cluster.partitions), defaults.partition)
    partition = cluster.partitions.get(name)
    if partition is None:
        return None
    return Resources(
        partition=name,
        account=_choose_account(defaults.account, fields, associations, partition),
        time_s=fields.amount(
            "time", parse_time, render_time, (_MIN_TIME_S, partition.max_time_s), defaults.time_s
        ),
        cpus=fields.amount("cpus", parse_count, str, (1, partition.max_cpus), defaults.cpus),
        memory_bytes=fields.amount(
            "memory",
            parse_memory,
            render_memory,
            (min(_MIN_MEMORY, partition.max_memory_bytes), partition.max_memory_bytes),
            defaults.memory_bytes,
        ),
        gpus=fields.amount("gpus", parse_count, str, (0, partition.max_gpus), defaults.gpus),
        gpu_type=partition.gpu_type,
    )


def _choose_account(
    default: str, fields: _Fields, associations: Sequence[Association] | None, partition: Partition
) -> str:
    asked = fields.text("account")
    if asked is not None and not is_scheduler_name(asked):
        fields.refused["account"] = f"{_shown(asked)} cannot be an account's name."
        return default
    if associations is None:
        return asked or default
    allowed = accounts_for(associations, partition.name)
    if asked is None:
        return default if default in allowed else ""
    if asked not in allowed:
        fields.refused["account"] = (
            f"{_shown(asked)} is not an account of yours on partition {partition.name}. "
            f"Choose {_listed(allowed)}."
        )
    return asked


def _refusal(refused: Mapping[str, str]) -> InvalidRequest:
    said = " ".join(
        f"{name if name in OPTION_NAMES else _shown(name)}: {why}" for name, why in refused.items()
    )
    return InvalidRequest(said, fields=refused)


def _shown(value: str) -> str:
    """A value as a message may show it: bounded, control characters escaped."""
    return repr(value if len(value) <= 40 else value[:40] + "…")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "nothing: none is offered"
