"""What sacctmgr lists: its entities, the fields of each, and whether a line asks for them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence

# How sacctmgr asks back.
QUESTION = "(N/y)"
# The fields that sacctmgr shows itself, by what is listed: sacctmgr(1).
_LIMITS = (
    "Share,Priority,GrpJobs,GrpNodes,GrpCPUs,GrpMem,GrpSubmit,GrpWall,GrpCPUMins,MaxJobs,MaxNodes,MaxCPUs"
)
_OWN_LIMITS = "MaxSubmit,MaxWall,MaxCPUMins,QOS,DefaultQOS"
_ENTITIES: dict[str, str] = {
    "accounts": "Account,Description,Organization",
    "associations": "Cluster,Account,User,Partition",
    "clusters": "Cluster,ControlHost,ControlPort,RPC",
    "events": "Cluster,NodeName,TimeStart,TimeEnd,State,Reason,User",
    "federations": "Federation,Cluster,ID,Features,FedState",
    "qos": "Name,Priority,GraceTime,Preempt,PreemptExemptTime,PreemptMode,Flags,UsageThreshold,UsageFactor,"
    "GrpTRES,GrpTRESMins,GrpTRESRunMins,GrpJobs,GrpSubmit,GrpWall,MaxTRES,MaxTRESPerNode,MaxTRESMins,MaxWall,"
    "MaxTRESPerUser,MaxJobsPerUser,MaxSubmitJobsPerUser,MaxTRESPerAccount,MaxTRESRunMinsPerAccount,"
    "MaxTRESRunMinsPerUser,MaxJobsPerAccount,MaxSubmitJobsPerAccount,MinTRES",
    "instances": "Cluster,NodeName,TimeStart,TimeEnd,InstanceId,InstanceType,Extra",
    "resources": "Name,Server,Type,Count,LastConsumed,Allocated,ServerType",
    "reservations": "Cluster,Name,TRES,TimeStart,TimeEnd,UnusedWall",
    "transactions": "Time,Action,Actor,Where,Info",
    "tres": "Type,Name,ID",
    "users": "User,DefaultAccount,AdminLevel",
    "wckeys": "WCKey,Cluster,User",
}
# What else is shown when one of these words stands in the line, too.
_MORE: dict[tuple[str, str], str] = {
    ("accounts", "withassoc"): f"Cluster,ParentName,User,{_LIMITS},{_OWN_LIMITS}",
    ("accounts", "withcoordinators"): "Coordinators",
    ("clusters", "withfed"): "Federation,ID,Features,FedState",
    ("resources", "withclusters"): "Cluster,Allowed",
    ("transactions", "withassocinfo"): "User,Account,Cluster",
    ("users", "withcoordinators"): "Coordinators",
    ("users", "withassoc"): "Cluster,Account,Partition,Share,Priority,MaxJobs,MaxNodes,MaxCPUs,"
    + _OWN_LIMITS,
}
_ALIASES = {"acct": "accounts", "txn": "transactions"}
# Not with wolimits, for clusters, or with woplimits, for associations.
_ASSOC_LIMITS = (
    "Share,Priority,GrpJobs,GrpTRES,GrpSubmit,GrpWall,GrpTRESMins,MaxJobs,MaxTRES,MaxTRESPerNode,MaxSubmit,MaxWall,"
    "MaxTRESMins,QOS,DefaultQOS,GrpTRESRunMins"
)
_CLUSTER_LIMITS = "Share,GrpJobs,GrpTRES,GrpSubmit,MaxJobs,MaxTRES,MaxSubmit,MaxWall,QOS,DefaultQOS"
_CLUSTER_EVENTS = "Cluster,TRES,TimeStart,TimeEnd,ClusterNodes"
# Refused by Slurm 22.05 and older.
LATER_FIELDS = frozenset({"LastConsumed"})


def is_question(words: Sequence[str]) -> bool:
    """Whether sacctmgr shall show something, and change nothing."""
    at = verb_place(words)
    verb = words[at].lower() if at < len(words) else ""
    return len(verb) >= 3 and any(one.startswith(verb) for one in ("show", "list"))


def verb_place(words: Sequence[str]) -> int:
    """The place of the first word that is no option; behind it stands the entity."""
    return next((place for place, word in enumerate(words) if not word.startswith("-")), len(words))


def full_name(word: str) -> str:
    """The entity that a word names or begins to name; empty where there is none, or several."""
    begun = [name for name in (*_ENTITIES, *_ALIASES) if word and name.startswith(word.lower())]
    names = {_ALIASES.get(name, name) for name in begun}
    return names.pop() if len(names) == 1 else ""


def entity_fields(entity: str, asked: Sequence[str]) -> str:
    """What sacctmgr shows of it, with these words in the line."""
    if entity == "events" and any(re.fullmatch(r"event[a-z]*=c[a-z]*", word) for word in asked):
        return _CLUSTER_EVENTS
    fields = [_ENTITIES[entity]]
    if entity == "associations" and not any(word.startswith("wopl") for word in asked):
        fields.append(_ASSOC_LIMITS)
    if entity == "clusters" and not any(word.startswith("wol") for word in asked):
        fields.append(_CLUSTER_LIMITS)
    for (one, option), more in _MORE.items():
        if one == entity and any(len(word) >= 5 and option.startswith(word) for word in asked):
            fields.append(more)
    if entity == "resources":
        fields.append("Flags")
    return ",".join(fields)
