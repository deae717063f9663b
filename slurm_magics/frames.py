"""Tables of text become DataFrames with types. pandas is imported when the first frame is made."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

from slurm_magics import columns as known_columns
from slurm_magics import values
from slurm_magics.delimited import UNIT, Table, unique
from slurm_magics.job_ids import parse_job_id
from slurm_magics.values import Kind

if TYPE_CHECKING:
    import pandas as pd

_NOTHING = -(2**63)  # NaT, in numpy's integers


class UnreadColumn(UserWarning):
    """A column that holds something unexpected stays text."""


class Coded(NamedTuple):
    """A column as each word once, and the place of its word for each row."""

    words: list[str]
    codes: Any


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
    columns: dict[str, Coded | list[str]] = (
        {} if table.clusters is None else {"CLUSTER": _code(table.clusters)}
    )
    for heading, texts in zip(table.headings, table.columns, strict=True):
        columns[heading] = texts if kinds.get(heading, Kind.TEXT) is Kind.TEXT else _code(texts)
    return _frame(columns, kinds, zone, parts, table.headings[0])


def marked_to_frame(
    answer: bytes, mark: str, kinds: Mapping[str, Kind], *, zone: tzinfo, parts: Sequence[str] = ()
) -> pd.DataFrame | None:
    """What `parse_marked` and `table_to_frame` make of it, by pandas' own parser, several times as quickly.

    None where it is not all rows of one line each with one heading: names with line ends, notices of a
    site, several clusters.
    """
    import pandas as pd

    first, _, _ = answer.partition(b"\n")
    headings = first.decode("ascii", "replace").split(UNIT)
    if headings[0] != mark or headings[-1] != mark:
        return None
    names = ["", *unique([heading.strip() for heading in headings[1:-1]]), " "]
    try:
        found = pd.read_csv(
            io.BytesIO(answer),
            sep=UNIT, lineterminator="\n", quoting=3, na_filter=False, skip_blank_lines=False, header=None,
            skiprows=1, names=names, low_memory=True, encoding_errors="backslashreplace",
            dtype=object,
        )  # fmt: skip
    except pd.errors.ParserError:
        return None
    if any(set(found.pop(end)) - {mark} for end in ("", " ")):
        return None
    columns = {
        name: texts.to_numpy() if kinds.get(str(name), Kind.TEXT) is Kind.TEXT else _code(texts)
        for name, texts in found.items()
    }
    return _frame(columns, kinds, zone, parts, names[1])


def _frame(
    columns: Mapping[str, Any], kinds: Mapping[str, Kind], zone: tzinfo, parts: Sequence[str], ids: str
) -> pd.DataFrame:
    import pandas as pd

    from slurm_magics import accessor  # noqa: F401  registers DataFrame.slurm

    found: dict[str, Any] = {}
    for heading, column in columns.items():
        kind = kinds.get(heading, Kind.TEXT)
        if heading in known_columns.SPLIT and (split := _split(heading, column)):
            found |= split
        elif heading == "PARTITION" and any(word.endswith("*") for word in column.words):
            found |= _starred(heading, column)
        else:
            found[heading] = _column(heading, column, kind, zone)
        if parts and heading == ids:
            found |= _id_parts(list(column), parts)
    rows = len(next(iter(found.values())))
    return pd.DataFrame(found, index=pd.RangeIndex(rows), copy=False)


def _column(heading: str, column: Any, kind: Kind, zone: tzinfo) -> Any:
    if kind is Kind.TEXT:
        return _text(column)
    if kind is Kind.WORD:
        return _word(column)
    try:
        if kind is Kind.NUMBER:
            return _numbers(column)
        if kind is Kind.FRACTION:
            return _fractions([values.number(word) for word in column.words], column)
        if kind is Kind.MOMENT:
            return _moments(_each(values.moment(zone), column), zone)
        read, make = _READERS[kind]
        return make(_each(read, column))
    except (ValueError, OverflowError) as error:
        warnings.warn(f"The column {heading} stays text: {error}.", UnreadColumn, stacklevel=5)
        return _text([column.words[code] for code in column.codes])


def _code(texts: Any) -> Coded:
    import numpy as np
    import pandas as pd

    codes, words = pd.factorize(np.asarray(texts, dtype=object))
    return Coded(list(words), codes)


def _each(read: Callable[[str], int | None], column: Coded) -> Any:
    """An array of whole numbers, each word read once."""
    import numpy as np

    numbers = [_NOTHING if (found := read(word)) is None else found for word in column.words]
    return np.array(numbers, dtype="int64")[column.codes]


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


def _starred(heading: str, column: Coded) -> dict[str, Any]:
    """sinfo's default partition bears a star; it becomes a column of its own."""
    import numpy as np
    import pandas as pd

    stars = np.array([word.endswith("*") for word in column.words])[column.codes]
    plain = _code(np.array([word.removesuffix("*") for word in column.words], dtype=object)[column.codes])
    return {heading: _word(plain), "DEFAULT": pd.array(stars, dtype="boolean")}


def _split(heading: str, texts: list[str]) -> dict[str, Any]:
    """The columns of `3/1/0/4`; none where a row has another shape."""
    names = known_columns.SPLIT[heading]
    rows = [text.split("/") for text in texts]
    if any(len(row) != len(names) for row in rows):
        return {}
    try:
        found = [_each(values.count, _code([row[at] for row in rows])) for at in range(len(names))]
    except ValueError:
        return {}
    return dict(zip(names, map(_counts, found), strict=True))


def _id_parts(texts: list[str], names: Sequence[str]) -> dict[str, Any]:
    import numpy as np

    # Most ids are plain numbers and need no pattern.
    others = {row: parse_job_id(text) for row, text in enumerate(texts) if not text.isdecimal()}
    heads = [text if row not in others else others[row].job for row, text in enumerate(texts)]
    jobs = np.fromiter(map(int, heads), dtype="int64", count=len(heads))
    tasks, hets = np.full(len(texts), _NOTHING), np.full(len(texts), _NOTHING)
    for row, found in others.items():
        tasks[row] = _NOTHING if found.task is None else found.task
        hets[row] = _NOTHING if found.het is None else found.het
    columns = dict(zip(names, map(_counts, (jobs, tasks, hets)), strict=False))
    steps = ["" if row not in others else others[row].step for row in range(len(texts))] if names[3:] else []
    return columns | {name: _word(_code(steps)) for name in names[3:]}


def _counts(whole: Any) -> Any:
    import pandas as pd

    absent = whole == _NOTHING
    whole[absent] = 1
    return pd.arrays.IntegerArray(whole, absent)


def _numbers(column: Coded) -> Any:
    """Whole numbers where all are, as PRIORITY is with `%Q`; fractions else, as with `%p`."""
    found = [values.number(word) for word in column.words]
    if all(one is None or one.is_integer() for one in found):
        return _counts(_each(lambda word: None if (one := values.number(word)) is None else int(one), column))
    return _fractions(found, column)


def _fractions(found: list[float | None], column: Coded) -> Any:
    import pandas as pd

    return pd.array(found, dtype="Float64").take(column.codes)


def _durations(milliseconds: Any) -> Any:
    import pandas as pd

    return pd.Series(milliseconds.view("timedelta64[ms]"))


def _moments(seconds: Any, zone: tzinfo) -> Any:
    import pandas as pd

    found = pd.Series(seconds.view("datetime64[s]"))
    return found.dt.tz_localize("UTC").dt.tz_convert(zone)


_READERS: dict[Kind, tuple[Callable[[str], int | None], Callable[[Any], Any]]] = {
    Kind.COUNT: (values.count, _counts),
    Kind.SIZE: (values.size, _counts),
    Kind.MEGABYTES: (values.megabytes, _counts),
    Kind.DURATION: (values.duration_ms, _durations),
    Kind.SECONDS: (values.seconds_ms, _durations),
    Kind.MINUTES: (values.minutes_ms, _durations),
}
