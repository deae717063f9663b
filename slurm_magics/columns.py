"""What the columns of Slurm's tables hold, by their headings. Any that is not listed is text."""

from __future__ import annotations

from collections.abc import Mapping

from slurm_magics.values import Kind


def kinds_by_heading(listed: Mapping[Kind, str]) -> dict[str, Kind]:
    """The kind of each heading."""
    return {heading: kind for kind, headings in listed.items() for heading in headings.split()}


SQUEUE = kinds_by_heading(
    {
        Kind.WORD: "PARTITION USER ACCOUNT QOS ST STATE REASON GROUP OVER_SUBSCRIBE RESERVATION "
        "WCKEY CLUSTER",
        Kind.COUNT: "NODES CPUS MIN_CPUS TASKS UID ARRAY_JOB_ID PRIORITY_2 NICE CORE_SPEC RESTART_COUNT "
        "SOCKETS_PER_NODE CORES_PER_SOCKET JOB TASK HET",
        Kind.NUMBER: "PRIORITY",
        Kind.MEGABYTES: "MIN_MEMORY MIN_TMP_DISK",
        Kind.DURATION: "TIME TIME_LIMIT TIME_LEFT",
        Kind.SECONDS: "PENDING_TIME",
        Kind.MOMENT: "START_TIME END_TIME SUBMIT_TIME ELIGIBLE_TIME ACCRUE_TIME LAST_SCHED_EVAL "
        "PREEMPT_TIME DEADLINE",
    }
)

SINFO = kinds_by_heading(
    {
        Kind.WORD: "PARTITION AVAIL STATE ROOT OVERSUBSCRIBE PREEMPT_MODE USER VERSION CLUSTER GROUPS",
        Kind.COUNT: "NODES CPUS SOCKETS CORES THREADS WEIGHT PRIO_TIER PRIO_JOB_FACTOR MAX_CPUS_PER_NODE "
        "NODES_A NODES_I NODES_O NODES_T CPUS_A CPUS_I CPUS_O CPUS_T",
        Kind.NUMBER: "CPU_LOAD",
        Kind.MEGABYTES: "MEMORY FREE_MEM TMP_DISK ALLOCMEM",
        Kind.DURATION: "TIMELIMIT DEFAULTTIME",
        Kind.MOMENT: "TIMESTAMP",
    }
)

SACCT = kinds_by_heading(
    {
        Kind.WORD: "Account Cluster Partition QOS State User Group Reservation WCKey Reason ExitCode "
        "DerivedExitCode Layout",
        Kind.COUNT: "AllocCPUS AllocNodes AssocID AvePages DBIndex GID MaxDiskReadTask MaxDiskWriteTask "
        "MaxPages MaxPagesTask MaxRSSTask MaxVMSizeTask MinCPUTask NCPUS NNodes NTasks Priority QOSRAW "
        "ReqCPUS ReqNodes ReservationId UID WCKeyID ConsumedEnergyRaw Job Task Het",
        Kind.SIZE: "AveDiskRead AveDiskWrite AveRSS AveVMSize MaxDiskRead MaxDiskWrite MaxRSS MaxVMSize",
        Kind.MEGABYTES: "ReqMem",
        Kind.DURATION: "AveCPU CPUTime Elapsed MinCPU Planned PlannedCPU Reserved ResvCPU Suspended "
        "SystemCPU Timelimit TotalCPU UserCPU",
        Kind.SECONDS: "CPUTimeRAW ElapsedRaw PlannedCPURAW ResvCPURAW",
        Kind.MINUTES: "TimelimitRaw",
        Kind.MOMENT: "Eligible End Start Submit",
    }
)

# sprio's headings are ours: its own has PARTITION for a partition's name and for what it is worth.
SPRIO = {
    "i": "JOBID", "r": "PARTITION", "u": "USER", "c": "CLUSTER", "o": "ACCOUNT", "n": "QOSNAME",
    "Y": "PRIORITY", "y": "PRIORITY", "S": "SITE", "A": "AGE", "a": "AGE", "B": "ASSOC", "b": "ASSOC",
    "F": "FAIRSHARE", "f": "FAIRSHARE", "J": "JOBSIZE", "j": "JOBSIZE", "P": "PARTITION_PRIORITY",
    "p": "PARTITION_PRIORITY", "Q": "QOS", "q": "QOS", "N": "NICE", "T": "TRES", "t": "TRES",
    "s": "SLUID",
}  # fmt: skip
SPRIO_KINDS = {
    **dict.fromkeys("rucon", Kind.WORD),
    **dict.fromkeys("YSABFJPQN", Kind.COUNT),
    **dict.fromkeys("yabfjpq", Kind.FRACTION),
}

SSHARE = kinds_by_heading(
    {
        Kind.WORD: "Account User Partition Cluster CLUSTER",
        Kind.COUNT: "Level RawShares RawUsage ID",
        Kind.FRACTION: "NormShares NormUsage EffectvUsage FairShare LevelFS",
    }
)

SSTAT = SACCT

SREPORT = {
    **kinds_by_heading(
        {
            Kind.WORD: "Cluster Account Login WCKey Wckey QOS Partition User",
            Kind.TEXT: "Name Associations Flags Nodes",
            Kind.COUNT: "Id",
            Kind.DURATION: "TotalTime Duration",
            Kind.MOMENT: "Start End",
        }
    ),
    **dict.fromkeys(["TRES Name"], Kind.WORD),
    **dict.fromkeys(["Proper Name"], Kind.TEXT),
    **dict.fromkeys(["TRES Count", "TRES count", "Job Count", "Node Count", "QOS ID"], Kind.COUNT),
    **dict.fromkeys(["TRES Time"], Kind.DURATION),
}

SACCTMGR = {
    **kinds_by_heading(
        {
            Kind.WORD: "Account Action Actor Admin Class Cluster ControlHost Event Federation FedState "
            "InstanceType ParentName Partition PreemptMode Server ServerType State Type User WCKey",
            Kind.COUNT: "ActionRaw Allocated Allowed ControlPort Count EventRaw FedStateRaw GrpCPUMins "
            "GrpCPURunMins GrpCPUs GrpJobs GrpJobsAccrue GrpNodes GrpSubmit ID LastConsumed Level MaxCPUMins "
            "MaxCPURunMinsPU MaxCPUs MaxCPUsPU MaxJobs MaxJobsAccrue MaxJobsAccruePA MaxJobsAccruePU "
            "MaxJobsPA MaxJobsPU MaxNodes MaxNodesPU MaxSubmit MaxSubmitPA MaxSubmitPU MinCPUs MinPrioThres "
            "NodeCount ParentID Priority RPC Share StateRaw",
            Kind.FRACTION: "LimitFactor UsageFactor UsageThres",
            Kind.MEGABYTES: "GrpMem",
            Kind.DURATION: "Duration GraceTime GrpWall MaxWall PreemptExemptTime",
            Kind.SECONDS: "UnusedWall",
            Kind.MOMENT: "Time TimeEligible TimeEnd TimeStart TimeSubmit",
        }
    ),
    **dict.fromkeys(["Def Acct", "Def QOS", "Def WCKey", "Par Name"], Kind.WORD),
    **dict.fromkeys(["# Allowed", "# Used", "% Allocated", "% Allowed", "CPU Cnt"], Kind.COUNT),
}

# Columns that hold several counts, as `3/1/0/4`, and the columns that they become.
SPLIT = {
    "NODES(A/I)": ("NODES_A", "NODES_I"),
    "NODES(A/I/O/T)": ("NODES_A", "NODES_I", "NODES_O", "NODES_T"),
    "CPUS(A/I/O/T)": ("CPUS_A", "CPUS_I", "CPUS_O", "CPUS_T"),
}
