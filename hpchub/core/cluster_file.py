"""Reads `clusters.d/<name>.toml` strictly: every fault in the file is found and named at once.

An unknown key is a fault that names the nearest valid one. Places are dotted keys as TOML writes
them (`partitions.cpu.max_time`), with the line where one can be told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hpchub.core.certificate import is_principal_form
from hpchub.core.cluster import (
    STARTS_AT_ONCE,
    Attach,
    Caps,
    Cluster,
    ComputePlacement,
    Container,
    Defaults,
    Environment,
    LoginLimits,
    LoginNode,
    LoginPlacement,
    Partition,
    Placement,
)
from hpchub.core.slugs import SCHEDULER_NAME, is_safe_account_name, is_scheduler_name
from hpchub.core.toml_table import Table, load_table, nearest
from hpchub.core.units import parse_memory, parse_time, render_memory
from hpchub.errors import ConfigError

SCHEDULERS = ("slurm",)

# A unix socket's path holds 107 bytes (unix(7)), and `/hpchub-ID/jupyter/kernel-UUID-ipc-N` 82.
_LONGEST_RUNTIME_DIR = 25

# JupyterLab with one kernel takes some 25 threads, and each of the two 150 MB of what RLIMIT_DATA counts.
_LEAST_LOGIN_MEMORY = 512 * 1024**2
_LEAST_LOGIN_PROCESSES = 64

# Rendered into scripts and ssh command lines: no blanks, quotes or control characters.
_PATH = re.compile(r"/[A-Za-z0-9._+@/-]*", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*", re.ASCII)
_PROXY_JUMP = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?", re.ASCII
)
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*", re.ASCII)
_IMAGE = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._/:@+-]*", re.ASCII)


def load_clusters(folder: Path) -> dict[str, Cluster]:
    """Every `*.toml` of a folder, by name. ConfigError lists the faults of all files together."""
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise ConfigError(f"{folder} holds no cluster file.", "Write one: <name>.toml for each cluster.")
    clusters: dict[str, Cluster] = {}
    problems: list[str] = []
    for path in paths:
        try:
            clusters[path.stem] = load_cluster(path)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(f"The cluster files in {folder} are wrong:", problems=problems)
    return clusters


def load_cluster(path: Path) -> Cluster:
    """One cluster file. ConfigError lists every fault in it."""
    return load_table(path, lambda top: _read_cluster(top, path), f"The cluster file {path.name} is wrong:")


def _read_cluster(top: Table, path: Path) -> Cluster | None:
    if not is_scheduler_name(path.stem):
        top.fault("", f"the file's name, {path.stem!r}, is the cluster's: use letters, digits, '-', '_'")
    title = top.text("title", path.stem)
    principal = top.text("principal", "")
    if principal and not is_principal_form(principal):
        top.fault(
            "principal",
            f"{principal!r} is no form of a principal: write 'hpchub:{{account}}' or '{{account}}'",
        )
    scheduler = top.table("scheduler")
    kind = scheduler.text("kind", "slurm")
    if kind not in SCHEDULERS:
        scheduler.fault("kind", f"{kind!r} is not one of {', '.join(SCHEDULERS)}")
    scheduler_cluster = scheduler.text("cluster", "", SCHEDULER_NAME)
    status_account = scheduler.text("status_account", "")
    if status_account and not is_safe_account_name(status_account):
        scheduler.fault("status_account", f"{status_account!r} is no account that may have a certificate")
    templates = scheduler.text("templates", "")
    scheduler.finish()

    nodes = [_read_login_node(row) for row in top.tables("login_nodes")]
    if not nodes:
        top.fault("login_nodes", "is missing: write at least one [[login_nodes]]")
    known_hosts = path.parent / top.text("known_hosts")
    proxy_jump = top.text("proxy_jump", "", _PROXY_JUMP)
    placements = top.table("placements")
    login = _read_login(placements.table("login")) if placements.has("login") else None
    compute = _read_compute(placements.table("compute")) if placements.has("compute") else None
    placements.finish()
    limits = top.table("limits")
    caps = _read_caps(limits)
    starts_at_once = limits.integer("starts_at_once", STARTS_AT_ONCE, low=1, high=1000)
    limits.finish()
    if not login and not compute:
        top.fault("placements", "offers nothing: write [placements.login], [placements.compute] or both")

    partitions = {name: _read_partition(name, table) for name, table in top.named_tables("partitions")}
    if compute and not partitions:
        top.fault("partitions", "is missing: [placements.compute] needs at least one [partitions.<name>]")
    environments = {name: _read_environment(name, table) for name, table in top.named_tables("environments")}
    if not environments:
        top.fault("environments", "is missing: write at least one [environments.<name>]")
    offered = ([Placement.LOGIN] if login else []) + ([Placement.COMPUTE] if compute else [])
    defaults = _read_defaults(top.table("defaults"), offered, list(partitions), list(environments))
    top.finish()
    if defaults is None:
        return None
    return Cluster(
        name=path.stem,
        title=title,
        scheduler=kind,
        scheduler_cluster=scheduler_cluster,
        status_account=status_account,
        principal=principal,
        templates=path.parent / templates if templates else None,
        login_nodes=tuple(nodes),
        proxy_jump=proxy_jump,
        known_hosts=known_hosts,
        login=login,
        compute=compute,
        partitions=partitions,
        environments=environments,
        defaults=defaults,
        caps=caps,
        starts_at_once=starts_at_once,
    )


def _read_login_node(table: Table) -> LoginNode:
    name = table.text("name", pattern=_ADDRESS)
    node = LoginNode(
        name=name,
        address=table.text("address", name or None, _ADDRESS),
        port=table.integer("port", 22, low=1, high=65535),
    )
    table.finish()
    return node


def _runtime_dir(table: Table, default: str) -> str:
    """A folder whose path leaves room for the longest socket in it, a kernel's."""
    folder = table.text("runtime_dir", default, _PATH)
    if len(folder) > _LONGEST_RUNTIME_DIR:
        table.fault("runtime_dir", f"{folder!r} is longer than {_LONGEST_RUNTIME_DIR} characters")
    return folder


def _read_caps(table: Table) -> Caps:
    """Left out is no cap; nobody writes a cap of 0, which would offer what cannot be had."""
    most = {key: table.integer(key, 0, low=1, high=1_000_000) for key in ("servers", "servers_per_user")}
    if 0 < most["servers"] < most["servers_per_user"]:
        table.fault("servers_per_user", f"is more than servers, which is {most['servers']}")
    return Caps(**most)


def _read_login_limits(table: Table) -> LoginLimits:
    limits = LoginLimits(
        memory_bytes=table.amount("memory", parse_memory, 0),
        cpus=table.integer("cpus", 0, low=1, high=65536),
        processes=table.integer("processes", 0, low=1, high=1_000_000),
        nice=table.integer("nice", 0, low=0, high=19),
    )
    if 0 < limits.memory_bytes < _LEAST_LOGIN_MEMORY:
        table.fault("memory", f"no notebook server runs in less than {render_memory(_LEAST_LOGIN_MEMORY)}")
    if 0 < limits.processes < _LEAST_LOGIN_PROCESSES:
        table.fault("processes", f"no notebook server runs with less than {_LEAST_LOGIN_PROCESSES}")
    return limits


def _read_login(table: Table) -> LoginPlacement:
    placement = LoginPlacement(
        runtime_dir=_runtime_dir(table, LoginPlacement().runtime_dir),
        caps=_read_caps(table),
        limits=_read_login_limits(table),
        idle_time_s=table.amount("idle_time", parse_time, 0),
        max_age_s=table.amount("max_age", parse_time, 0),
    )
    table.finish()
    return placement


def _read_compute(table: Table) -> ComputePlacement:
    usual = ComputePlacement()
    placement = ComputePlacement(
        attach=table.choice("attach", Attach, usual.attach),
        runtime_dir=_runtime_dir(table, usual.runtime_dir),
        sshd=table.text("sshd", usual.sshd, _PATH),
        port=table.integer("port", usual.port, low=1, high=65535),
        caps=_read_caps(table),
        idle_time_s=table.amount("idle_time", parse_time, 0),
        max_age_s=table.amount("max_age", parse_time, 0),
        warn_before_s=table.amounts("warn_before", parse_time, usual.warn_before_s),
        successor=table.boolean("successor", usual.successor),
    )
    table.finish()
    return placement


def _read_partition(name: str, table: Table) -> Partition:
    partition = Partition(
        name=name,
        title=table.text("title", name),
        max_time_s=table.amount("max_time", parse_time),
        max_cpus=table.integer("max_cpus", low=1, high=65536),
        max_memory_bytes=table.amount("max_memory", parse_memory),
        max_gpus=table.integer("max_gpus", 0, low=0, high=1024),
        gpu_type=table.text("gpu_type", "", _ADDRESS),
    )
    table.finish()
    return partition


def _read_environment(name: str, table: Table) -> Environment:
    ways = [key for key in ("prefix", "conda", "image") if table.has(key)]
    if len(ways) > 1:
        table.fault(ways[1], f"cannot stand beside {ways[0]}: choose one of prefix, conda, image")
    container = table.choice("container", Container) if table.has("container") else None
    if (container is None) != ("image" not in ways):
        table.fault("container", "container and image go together: the program, and what it runs")
    placements = table.texts("placements", re.compile("|".join(Placement)))
    environment = Environment(
        name=name,
        title=table.text("title", name),
        description=table.text("description", ""),
        modules=table.texts("modules", _MODULE),
        prefix=table.text("prefix", "", _PATH),
        conda_root=table.text("conda_root", pattern=_PATH) if "conda" in ways else "",
        conda=table.text("conda", "", _IMAGE),
        container=container,
        image=table.text("image", "", _IMAGE),
        binds=table.texts("binds", re.compile(_PATH.pattern + r"(?::" + _PATH.pattern + ")?", re.ASCII)),
        placements=tuple(Placement(item) for item in placements) or tuple(Placement),
    )
    table.finish()
    return environment


def _read_defaults(
    table: Table,
    placements: Sequence[Placement],
    partitions: Sequence[str],
    environments: Sequence[str],
) -> Defaults | None:
    def named(key: str, offered: Sequence[str]) -> str:
        value = table.text(key, offered[0] if offered else "")
        if offered and value not in offered:
            table.fault(key, f"{value!r} is not one of {', '.join(offered)}{nearest(value, offered)}")
        return value

    if not placements:
        return None
    defaults = Defaults(
        placement=Placement(named_placement)
        if (named_placement := named("placement", [p.value for p in placements])) in list(Placement)
        else placements[0],
        environment=named("environment", environments),
        partition=named("partition", partitions),
        account=table.text("account", "", SCHEDULER_NAME),
        time_s=table.amount("time", parse_time, 3600),
        cpus=table.integer("cpus", 1, low=1, high=65536),
        memory_bytes=table.amount("memory", parse_memory, 1024**3),
        gpus=table.integer("gpus", 0, low=0, high=1024),
    )
    table.finish()
    return defaults
