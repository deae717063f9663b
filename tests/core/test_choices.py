"""hpchub.core.choices"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpchub.core.choices import OPTION_NAMES, ServerOptions, accounts_for, choose
from hpchub.core.cluster import (
    Cluster,
    ComputePlacement,
    Defaults,
    Environment,
    LoginNode,
    LoginPlacement,
    Partition,
    Placement,
)
from hpchub.core.job import Association
from hpchub.errors import InvalidRequest

GIB = 1024**3
CLUSTER = Cluster(
    name="alpha",
    title="Alpha",
    scheduler="slurm",
    login_nodes=(LoginNode(name="login1", address="login1"),),
    known_hosts=Path("known_hosts"),
    login=LoginPlacement(),
    compute=ComputePlacement(),
    partitions={
        "cpu": Partition(name="cpu", max_time_s=7200, max_cpus=4, max_memory_bytes=8 * GIB),
        "gpu": Partition(
            name="gpu", max_time_s=1800, max_cpus=2, max_memory_bytes=2 * GIB, max_gpus=2, gpu_type="a100"
        ),
    },
    environments={
        "lab": Environment(name="lab", title="Lab"),
        "deep": Environment(name="deep", title="Deep", placements=(Placement.COMPUTE,)),
    },
    defaults=Defaults(
        placement=Placement.COMPUTE, environment="lab", partition="cpu", time_s=3600, memory_bytes=4 * GIB
    ),
)
CLUSTERS = {"alpha": CLUSTER}
ASSOCIATIONS = {
    "alpha": [Association(account="physics"), Association(account="chem", partition="gpu", is_default=True)]
}


def refused(raw: Mapping[str, object], **known: object) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        choose(CLUSTERS, raw, **known)  # type: ignore[arg-type]
    return caught.value.fields


def test_what_is_left_out_takes_the_default() -> None:
    """No options at all give the cluster file's defaults."""
    options = choose(CLUSTERS, {})
    assert options.placement is Placement.COMPUTE
    assert options.environment == "lab"
    assert options.resources is not None
    assert (options.resources.partition, options.resources.time_s) == ("cpu", 3600)


def test_defaults_shrink_to_the_partition() -> None:
    """A default above a smaller partition's limit becomes that limit."""
    resources = choose(CLUSTERS, {"partition": "gpu"}).resources
    assert resources is not None
    assert (resources.time_s, resources.memory_bytes, resources.gpu_type) == (1800, 2 * GIB, "a100")


def test_a_login_node_takes_no_resources() -> None:
    """On a login node there is nothing to ask of the scheduler, and only its own environments."""
    assert choose(CLUSTERS, {"placement": "login"}).resources is None
    assert "environment" in refused({"placement": "login", "environment": "deep"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            ("cpus", value)
            for value in ("0", "-1", "5", "1e9", "٣", "1\n", "2;id", "$(id)", "9" * 30, True, 1.5)
        ],
        *[("time", value) for value in ("00:00:30", "03:00:00", "90", "-01:00:00", "01:00:00; id")],
        *[("memory", value) for value in ("1K", "9G", "4", "-4G", "4G\n#SBATCH --nice")],
        *[("gpus", value) for value in ("1", "-1", "x")],
        *[("partition", value) for value in ("nope", "cpu\n", "cpu gpu", "--nice")],
        *[("account", value) for value in ("a\n#SBATCH --nice", "a b", "$(id)", "-x", "ä")],
        ("environment", "../../etc"),
        ("cluster", "beta"),
        ("placement", "moon"),
        ("qos", "high"),
    ],
)
def test_bad_values_are_refused_by_name(name: str, value: object) -> None:
    """Each bad value is refused, and the field is named."""
    assert list(refused({name: value})) == [name]


def test_all_faults_are_told_at_once() -> None:
    """Three bad fields give three entries, each with what is allowed."""
    fields = refused({"cpus": "99", "time": "nope", "gpus": "7"})
    assert set(fields) == {"cpus", "time", "gpus"}
    assert "1 to 4" in fields["cpus"]


def test_an_account_must_be_the_persons_own() -> None:
    """Where the associations are known, only theirs can be charged, and only where they hold."""
    assert "account" in refused({"account": "other"}, associations=ASSOCIATIONS)
    assert "account" in refused({"account": "chem", "partition": "cpu"}, associations=ASSOCIATIONS)
    options = choose(CLUSTERS, {"account": "chem", "partition": "gpu"}, ASSOCIATIONS)
    assert options.resources is not None
    assert options.resources.account == "chem"


def test_accounts_are_listed_default_first() -> None:
    """The person's own default comes first; another partition's account is left out."""
    assert accounts_for(ASSOCIATIONS["alpha"], "gpu") == ["chem", "physics"]
    assert accounts_for(ASSOCIATIONS["alpha"], "cpu") == ["physics"]


def test_a_message_stays_short() -> None:
    """An absurd option does not make an absurd message."""
    with pytest.raises(InvalidRequest) as caught:
        choose(CLUSTERS, {"x" * 10_000: "1", "cpus": "9" * 10_000})
    assert len(caught.value.message) < 1000


@given(st.sampled_from([{}, {"placement": "login"}, {"partition": "gpu", "gpus": 2, "cpus": ["2"]}]))
def test_options_round_trip(raw: Mapping[str, object]) -> None:
    """What is stored in the database reads back the same."""
    options = choose(CLUSTERS, raw)
    assert ServerOptions.from_dict(options.as_dict()) == options


_VALUES = st.one_of(
    st.text(), st.integers(), st.booleans(), st.none(), st.floats(), st.lists(st.text(), max_size=2)
)


@given(st.dictionaries(st.one_of(st.sampled_from(OPTION_NAMES), st.text()), _VALUES, max_size=5))
def test_any_input_is_chosen_or_refused(raw: Mapping[str, object]) -> None:
    """Nothing but InvalidRequest comes out, and what passes is within the limits."""
    try:
        resources = choose(CLUSTERS, raw).resources
    except InvalidRequest as error:
        assert error.fields
        return
    if resources is not None:
        partition = CLUSTER.partitions[resources.partition]
        assert 1 <= resources.cpus <= partition.max_cpus
        assert 60 <= resources.time_s <= partition.max_time_s
        assert 0 <= resources.gpus <= partition.max_gpus
        assert resources.memory_bytes <= partition.max_memory_bytes
