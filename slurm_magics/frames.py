"""Tables of text become DataFrames with types. pandas is imported when the first frame is made."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from slurm_magics import columns as known_columns
from slurm_magics import values
from slurm_magics.delimited import Table
from slurm_magics.job_ids import parse_job_id
from slurm_magics.values import Kind

if TYPE_CHECKING:
    import pandas as pd

    from slurm_magics.cells import Cells, Coded, Texts

# What sacct's ReqMem was for, before 21.08.
_PER = {"n": "node", "c": "CPU"}


class UnreadColumn(UserWarning):
    """A column that holds something unexpected stays text."""


def table_to_frame(
    table: Table, kinds: Mapping[str, Kind], *, zone: tzinfo, parts: Sequence[str] = ()
) -> pd.DataFrame:
    """One row for each row of the table, and a column of the right type for each of its columns.

    A column in which any value does not fit its kind is left as text, with a warning: no value is lost.

    Args:
        table: What Slurm answered.
        kinds: By heading. One that is not there is text.
        zone: The cluster's time zone.
        parts: Headings for the parts of the ids in the first column (job, task, heterogeneous component,
            and step where there is a fourth); none where the ids are to stay as they are.
    """
    from slurm_magics.cells import Texts

    found = {} if table.clusters is None else {"CLUSTER": table.clusters}
    found |= dict(zip(table.headings, table.columns, strict=True))
    columns = {heading: Texts(texts) for heading, texts in found.items()}
    return _frame(columns, kinds, zone, parts, table.headings[0])


def marked_to_frame(
    answer: bytes, mark: str, kinds: Mapping[str, Kind], *, zone: tzinfo, parts: Sequence[str] = ()
) -> pd.DataFrame | None:
    """What `parse_marked` and `table_to_frame` make of it, column by column, several times as quickly.

    None where it is not all rows of one line each with one heading: names with line ends, notices of a
    site, several clusters.
    """
    from slurm_magics.cells import cut

    columns = cut(answer, mark)
    return None if columns is None else _frame(columns, kinds, zone, parts, next(iter(columns)))


def _frame(
    columns: Mapping[str, Any], kinds: Mapping[str, Kind], zone: tzinfo, parts: Sequence[str], ids: str
) -> pd.DataFrame:
    import pandas as pd

    from slurm_magics import accessor  # noqa: F401  registers DataFrame.slurm

    found: dict[str, Any] = {}
    for heading, column in columns.items():
        if parts and heading == ids:
            found |= _ids(heading, column, parts)
        elif heading in known_columns.SPLIT and (split := _split(heading, column)):
            found |= split
        elif heading == "ReqMem" and (per := _per(heading, column.coded(), zone)):
            found |= per
        elif heading == "PARTITION":
            found |= _partitions(heading, column.coded())
        else:
            found[heading] = _column(heading, column, kinds.get(heading, Kind.TEXT), zone)
    rows = len(next(iter(found.values())))
    return pd.DataFrame(found, index=pd.RangeIndex(rows), copy=False)


def _column(heading: str, column: Cells | Texts, kind: Kind, zone: tzinfo) -> Any:
    if kind is Kind.TEXT:
        return _text(column.texts())
    if kind is Kind.WORD:
        return _word(column.coded())
    try:
        if kind is Kind.NUMBER:
            return _numbers(column.coded())
        if kind is Kind.FRACTION:
            coded = column.coded()
            return _fractions([values.number(word) for word in coded.words], coded)
        if kind is Kind.MOMENT:
            return _moments(column.moments_s(values.moment(zone)), zone)
        if kind is Kind.DURATION:
            return _durations(column.durations_ms())
        read, make = _READERS[kind]
        return make(column.coded().each(read))
    except (ValueError, OverflowError) as error:
        warnings.warn(f"The column {heading} stays text: {error}.", UnreadColumn, stacklevel=5)
        return _text(column.texts())


def _text(texts: Any) -> Any:
    """Text as pandas holds it: `object` in pandas 2, `str` in pandas 3."""
    import pandas as pd

    return pd.Series(texts, dtype=object).infer_objects()


def _word(column: Coded) -> Any:
    import numpy as np
    import pandas as pd

    order = sorted(range(len(column.words)), key=column.words.__getitem__)
    places = np.empty(len(order), dtype="int32")
    places[order] = np.arange(len(order), dtype="int32")
    words = pd.Index([column.words[place] for place in order], dtype=object)
    return pd.Categorical.from_codes(places[column.codes], categories=words, validate=False)


def _partitions(heading: str, column: Coded) -> dict[str, Any]:
    """sinfo's default partition bears a star; it becomes a column of its own."""
    import numpy as np
    import pandas as pd

    from slurm_magics.cells import Texts

    stars = np.array([word.endswith("*") for word in column.words], dtype=bool)
    if not stars.any():
        return {heading: _word(column)}
    plain = np.array([word.removesuffix("*") for word in column.words], dtype=object)
    return {
        heading: _word(Texts(plain[column.codes]).coded()),
        "DEFAULT": pd.array(stars[column.codes], dtype="boolean"),
    }


def _per(heading: str, column: Coded, zone: tzinfo) -> dict[str, Any]:
    """`4Gn` as bytes, and a column that says of what; none where Slurm is newer."""
    import numpy as np

    from slurm_magics.cells import Texts

    per = np.array([_PER.get(word[-1:], "") for word in column.words], dtype=object)
    if not per.any():
        return {}
    sizes = [word[:-1] if one else word for word, one in zip(column.words, per, strict=True)]
    plain = Texts(np.array(sizes, dtype=object)[column.codes])
    return {
        heading: _column(heading, plain, Kind.SIZE, zone),
        f"{heading}Per": _word(Texts(per[column.codes]).coded()),
    }


def _split(heading: str, column: Cells | Texts) -> dict[str, Any]:
    """The columns of `3/1/0/4`; none where a row has another shape."""
    from slurm_magics.cells import Texts

    names = known_columns.SPLIT[heading]
    rows = [text.split("/") for text in column.texts()]
    if any(len(row) != len(names) for row in rows):
        return {}
    try:
        found = [Texts([row[at] for row in rows]).coded().each(values.count) for at in range(len(names))]
    except ValueError:
        return {}
    return dict(zip(names, map(_counts, found), strict=True))


def _ids(heading: str, column: Cells | Texts, names: Sequence[str]) -> dict[str, Any]:
    """Job ids and their parts. Most are plain numbers and need no pattern; what is no id has no parts."""
    import numpy as np

    from slurm_magics.cells import NOTHING, Texts

    texts = column.texts()
    jobs, plain = column.whole_numbers()
    tasks, hets = np.full(len(jobs), NOTHING), np.full(len(jobs), NOTHING)
    found, odd = {}, None
    for row in np.flatnonzero(~plain):
        try:
            found[row] = parse_job_id(texts[row])
        except ValueError as error:
            odd = odd or error
    if odd:
        warnings.warn(f"{odd} in the column {heading}: it has no parts.", UnreadColumn, stacklevel=4)
    others = list(found)
    jobs[~plain] = NOTHING
    jobs[others] = [one.job for one in found.values()]
    tasks[others] = [NOTHING if one.task is None else one.task for one in found.values()]
    hets[others] = [NOTHING if one.het is None else one.het for one in found.values()]
    columns = {heading: _text(texts)}
    columns |= zip(names, map(_counts, (jobs, tasks, hets)), strict=False)
    if names[3:]:
        steps = np.full(len(jobs), "", dtype=object)
        steps[others] = [one.step for one in found.values()]
        columns[names[3]] = _word(Texts(steps).coded())
    return columns


def _counts(whole: Any) -> Any:
    import pandas as pd

    from slurm_magics.cells import NOTHING

    absent = whole == NOTHING
    whole[absent] = 1
    return pd.arrays.IntegerArray(whole, absent)


def _numbers(column: Coded) -> Any:
    """Whole numbers where all are, as PRIORITY is with `%Q`; fractions else, as with `%p`."""
    found = [values.number(word) for word in column.words]
    if all(one is None or one.is_integer() for one in found):
        return _counts(column.each(lambda word: None if (one := values.number(word)) is None else int(one)))
    return _fractions(found, column)


def _fractions(found: list[float | None], column: Coded) -> Any:
    import pandas as pd

    return pd.array(found, dtype="Float64").take(column.codes)


def _durations(milliseconds: Any) -> Any:
    import pandas as pd

    return pd.Series(milliseconds.view("timedelta64[ms]"))


def _moments(seconds: Any, zone: tzinfo) -> Any:
    import pandas as pd

    return pd.DatetimeIndex(seconds.view("datetime64[s]"), tz="UTC").tz_convert(zone)


_READERS: dict[Kind, tuple[Callable[[str], int | None], Callable[[Any], Any]]] = {
    Kind.COUNT: (values.count, _counts),
    Kind.SIZE: (values.size, _counts),
    Kind.MEGABYTES: (values.megabytes, _counts),
    Kind.SECONDS: (values.seconds_ms, _durations),
    Kind.MINUTES: (values.minutes_ms, _durations),
}
