"""Why a job is pending, in words a researcher understands.

Reasons are Slurm's own: squeue(1), JOB REASON CODES, and the names in libslurm 22.05. The limits of
QOS and associations follow a grammar, so those sentences are composed
(https://slurm.schedmd.com/resource_limits.html).
"""

from __future__ import annotations

import re

_NO_REASON = {"", "None", "(null)", "WaitingForScheduling", "N/A"}

_REASONS = {
    "Resources": "waiting for resources to become free",
    "Priority": "waiting behind jobs with a higher priority",
    "Dependency": "waiting for another job that it depends on",
    "DependencyNeverSatisfied": "it depends on a job in a way that can never come true; cancel it",
    "BeginTime": "its earliest start time has not come yet",
    "JobHeldUser": "held by its owner; release it with scontrol release",
    "JobHeldAdmin": "held by the site's staff; ask them",
    "JobHoldMaxRequeue": "held, because it was put back into the queue too often",
    "JobArrayTaskLimit": "waiting for other tasks of its array to end",
    "ReqNodeNotAvail": "a node it needs is down, reserved or about to be maintained",
    "NodeDown": "a node it needs is down",
    "FrontEndDown": "no front end node is up",
    "PartitionDown": "the partition is down; choose another one",
    "PartitionInactive": "the partition starts no jobs now; choose another one",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives; choose another one",
    "PartitionTimeLimit": "it asks for more time than the partition gives; ask for less",
    "PartitionConfig": "it asks for something the partition does not give",
    "Reservation": "waiting for its reservation to begin",
    "ReservationDeleted": "its reservation was deleted",
    "Licenses": "waiting for a software licence to become free",
    "BurstBufferResources": "waiting for room in the burst buffer",
    "BurstBufferStageIn": "waiting for its files to reach the burst buffer",
    "BadConstraints": "no node has the features it asks for",
    "Cleaning": "waiting for its previous run to be cleaned up",
    "Prolog": "the node is being prepared",
    "SchedDefer": "waiting for the scheduler's next round",
    "FedJobLock": "waiting for the clusters of the federation to agree where it runs",
    "InvalidAccount": "its account may not be used; choose another one",
    "AccountNotAllowed": "its account may not use this partition; choose another one",
    "InvalidQOS": "its QOS may not be used",
    "QOSNotAllowed": "its QOS may not be used in this partition",
    "QOSUsageThreshold": "its QOS needs more unused share than your account has left",
    "QOSJobLimit": "its QOS already has as many jobs as it may",
    "QOSResourceLimit": "its QOS already uses as much as it may",
    "QOSTimeLimit": "its QOS has used up its time",
    "AssociationJobLimit": "your account already has as many jobs as it may",
    "AssociationResourceLimit": "your account already uses as much as it may",
    "AssociationTimeLimit": "your account has used up its time",
    "AccountingPolicy": "a limit of your account or QOS stands in its way",
    "MaxMemPerLimit": "it asks for more memory than one job may have; ask for less",
    "DeadLine": "it cannot end before its deadline",
    "SystemFailure": "something in Slurm, the network or a file system failed; ask the site's staff",
    "JobLaunchFailure": "it could not be launched; ask the site's staff",
    "OutOfMemory": "it used more memory than it had asked for",
    "TimeLimit": "its time was up",
    "InactiveLimit": "it was inactive for too long",
    "NonZeroExitCode": "it ended with an error",
}

# Slurm writes these as sentences instead of a name (job_mgr.c, job_scheduler.c).
_PHRASES = (
    ("Nodes required for job are DOWN", "ReqNodeNotAvail"),
    ("launch failed requeued held", "JobLaunchFailure"),
    ("job requeued in held state", "JobHeldAdmin"),
)

_LIMIT = re.compile(
    r"(?P<owner>QOS|Assoc)?(?P<kind>Grp|Max|Min)"
    r"(?P<what>Cpu|CPU|Memory|Mem|Node|GRES|Energy|License|BB|Billing|Unknown|SubmitJobs?|Jobs|WallDuration|Wall)"
    r"(?P<minutes>RunMinutes|Minutes)?(?P<per>PerJob|PerNode|PerUser|PerAccount)?(?:Limit|NotSatisfied)?",
    re.ASCII,
)

_THINGS = {
    "Cpu": "CPUs",
    "CPU": "CPUs",
    "Mem": "memory",
    "Memory": "memory",
    "Node": "nodes",
    "GRES": "GPUs or other devices",
    "Energy": "energy",
    "License": "licences",
    "BB": "burst buffer",
    "Billing": "billing units",
    "Unknown": "resources",
    "Jobs": "running jobs",
    "SubmitJob": "jobs in the queue",
    "SubmitJobs": "jobs in the queue",
    "Wall": "wall time",
    "WallDuration": "time",
}

_COUNTABLE = {
    "Cpu",
    "CPU",
    "Node",
    "GRES",
    "License",
    "Billing",
    "Unknown",
    "Jobs",
    "SubmitJob",
    "SubmitJobs",
}


def explain_reason(reason: str) -> str:
    """A clause that says why a job waits, with Slurm's own reason in brackets."""
    native = reason.strip()
    if native in _NO_REASON:
        return "the scheduler has not looked at it yet"
    name = next((key for phrase, key in _PHRASES if native.startswith(phrase)), _first_word(native))
    clause = _REASONS.get(name) or _explain_limit(name)
    return f"{clause} ({native})" if clause else f"Slurm gives the reason {native}"


def _first_word(native: str) -> str:
    """`ReqNodeNotAvail, UnavailableNodes:c[1-2]` begins with the reason's name."""
    return re.split(r"[,\s(:]", native, maxsplit=1)[0]


def _explain_limit(name: str) -> str:
    match = _LIMIT.fullmatch(name)
    if match is None:
        return ""
    thing = _THINGS[match["what"]]
    owner = "your account" if match["owner"] == "Assoc" else "its QOS"
    if match["kind"] == "Min":
        fewer = "fewer" if match["what"] in _COUNTABLE else "less"
        return f"it asks for {fewer} {thing} than {owner} demands of a job"
    if match["minutes"]:
        return _explain_minutes(match, thing, owner)
    amount = f"as many {thing}" if match["what"] in _COUNTABLE else f"as much {thing}"
    more = f"more {thing}"
    if match["per"] in {"PerJob", "PerNode"}:
        return f"it asks for {more} than {owner} allows one {match['per'][3:].lower()}; ask for less"
    if match["kind"] == "Grp":
        return f"the jobs of {owner} together already have {amount} as they may"
    if match["per"] == "PerUser" or match["owner"] == "Assoc":
        return f"you already have {amount} as {owner} allows one person"
    return f"your account already has {amount} as {owner} allows one account"


def _explain_minutes(match: re.Match[str], thing: str, owner: str) -> str:
    """Budgets: minutes times CPUs, or another resource."""
    if match["per"] == "PerJob":
        return f"{thing} times minutes are more than {owner} allows one job; ask for less"
    if match["minutes"] == "RunMinutes":
        return f"running jobs already hold the budget of {owner} ({thing} times minutes)"
    return f"the budget of {owner} ({thing} times minutes) is used up"
