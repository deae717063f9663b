"""Tables of text become DataFrames with types. Imports pandas, so it is imported late."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from typing import Any

import numpy as np
import pandas as pd

import slurm_magics.accessor  # noqa: F401  registers DataFrame.slurm
from slurm_magics import columns as known_columns
from slurm_magics import values
from slurm_magics.cells import DURATION, NOTHING, WHOLE, Cells, Coded, Texts
from slurm_magics.delimited import Table
from slurm_magics.gathered import Digits, Gathered, Ids, Strings, Words
from slurm_magics.values import Kind

# What sacct's ReqMem was for, before 21.08.
_PER = {"n": "node", "c": "CPU"}


class UnreadColumn(UserWarning):
    """A column that holds something unexpected stays text."""


def table_to_frame(
    table: Table, kinds: Mapping[str, Kind], *, zone: tzinfo, parts: Sequence[str] = ()
) -> pd.DataFrame:
    """One row for each row of the table, and a column of the right type for each of its columns.

    The other arguments are those of `Columns`.
    """
    columns = Columns(table.headings, kinds, zone=zone, parts=parts)
    columns.add([Texts(texts) for texts in table.columns])
    return columns.frame(table.clusters)


class Columns:
    """A frame that is to be, which gets its rows little by little.

    A column in which any value does not fit its kind is left as text, with a warning: no value is lost.

    Args:
        headings: Of the columns of text.
        kinds: By heading. One that is not there is text.
        zone: The cluster's time zone.
        parts: Headings for the parts of the ids in the first column (job, task, heterogeneous component,
            and step where there is a fourth); none where the ids are to stay as they are.
    """

    def __init__(
        self, headings: Sequence[str], kinds: Mapping[str, Kind], *, zone: tzinfo, parts: Sequence[str] = ()
    ) -> None:
        self._kinds = kinds
        self._zone = zone
        self._parts = parts
        self._gathered = {heading: _gathering(heading, kinds) for heading in headings}
        if parts:
            self._gathered[headings[0]] = Ids(with_steps=len(parts) > 3)

    def add(self, columns: Sequence[Cells | Texts]) -> None:
        """Some more rows."""
        for gathered, column in zip(self._gathered.values(), columns, strict=True):
            gathered.add(column)

    def frame(self, clusters: list[str] | None = None) -> pd.DataFrame:
        """All of them; with a first column of clusters, where these are told apart."""
        found: dict[str, Any] = {}
        if clusters is not None:
            column = _gathering("CLUSTER", self._kinds)
            column.add(Texts(clusters))
            found |= self._finished("CLUSTER", column)
        for heading in [*self._gathered]:
            # What has been kept of it goes before the next one is made.
            found |= self._finished(heading, self._gathered.pop(heading))
        rows = len(next(iter(found.values())))
        return pd.DataFrame(found, index=pd.RangeIndex(rows), copy=False)

    def _finished(self, heading: str, column: Any) -> dict[str, Any]:
        """The columns of the frame that one column of text becomes."""
        if isinstance(column, Ids):
            return _ids(heading, column, self._parts)
        if isinstance(column, Words):
            column = column.coded()
        if heading in known_columns.SPLIT and (split := _split(heading, column)):
            return split
        if heading == "ReqMem" and (per := _per(heading, column)):
            return per
        if heading == "PARTITION":
            return _partitions(heading, column)
        return {heading: _column(heading, column, self._kinds.get(heading, Kind.TEXT), self._zone)}


def _gathering(heading: str, kinds: Mapping[str, Kind]) -> Gathered:
    """What collects the cells of a column."""
    kind = kinds.get(heading, Kind.TEXT)
    if heading in known_columns.SPLIT or heading in {"ReqMem", "PARTITION"} or kind in _BY_WORDS:
        return Words()
    return Strings() if kind is Kind.TEXT else Digits(DURATION if kind is Kind.DURATION else WHOLE)


def _column(heading: str, column: Any, kind: Kind, zone: tzinfo) -> Any:
    try:
        match kind:
            case Kind.TEXT:
                return _text(column.texts())
            case Kind.WORD:
                return _word(column)
            case Kind.NUMBER:
                return _numbers(column)
            case Kind.FRACTION:
                return _fractions([values.number(word) for word in column.words], column)
            case Kind.MOMENT:
                return _moments(column.values(moments_s, values.moment(zone)), zone)
        known, read, make = _READERS[kind]
        return make(column.values(known, read) if isinstance(column, Digits) else column.values(read))
    except (ValueError, OverflowError) as error:
        warnings.warn(f"The column {heading} stays text: {error}.", UnreadColumn, stacklevel=5)
        return _text(column.texts())


def _text(texts: Any) -> Any:
    """Text as pandas holds it: `object` in pandas 2, `str` in pandas 3."""
    return pd.Series(texts).array  # a frame takes long to align a Series with its rows


def _word(column: Coded) -> Any:
    order = sorted(range(len(column.words)), key=column.words.__getitem__)
    places = np.empty(len(order), dtype="int32")
    places[order] = np.arange(len(order), dtype="int32")
    words = pd.Index([column.words[place] for place in order], dtype=object)
    return pd.Categorical.from_codes(places[column.codes], categories=words, validate=False)


def _partitions(heading: str, column: Coded) -> dict[str, Any]:
    """sinfo's default partition bears a star; it becomes a column of its own."""
    stars = np.array([word.endswith("*") for word in column.words], dtype=bool)
    if not stars.any():
        return {heading: _word(column)}
    return {
        heading: _word(_mapped(column, lambda word: word.removesuffix("*"))),
        "DEFAULT": pd.array(stars[column.codes], dtype="boolean"),
    }


def _mapped(column: Coded, change: Callable[[str], str]) -> Coded:
    """The column with each word changed; some may be the same then."""
    places: dict[str, int] = {}
    found = [places.setdefault(change(word), len(places)) for word in column.words]
    return Coded([*places], np.array(found, dtype="int32")[column.codes])


def _per(heading: str, column: Coded) -> dict[str, Any]:
    """`4Gn` as bytes, and a column that says of what; none where Slurm is newer, or it cannot be read."""
    if not any(word[-1:] in _PER for word in column.words):
        return {}
    plain = _mapped(column, lambda word: word[:-1] if word[-1:] in _PER else word)
    try:
        sizes = _counts(plain.values(values.size))
    except ValueError as error:
        warnings.warn(f"The column {heading} stays text: {error}.", UnreadColumn, stacklevel=5)
        sizes = _text(plain.texts())
    return {heading: sizes, f"{heading}Per": _word(_mapped(column, lambda word: _PER.get(word[-1:], "")))}


def _split(heading: str, column: Coded) -> dict[str, Any]:
    """The columns of `3/1/0/4`; none where a row has another shape."""
    names = known_columns.SPLIT[heading]
    words = [word.split("/") for word in column.words]
    if any(len(word) != len(names) for word in words):
        return {}
    try:
        found = [[values.count(part) for part in word] for word in words]
    except ValueError:
        return {}
    counts = [[NOTHING if one is None else one for one in word] for word in found]
    each = np.array(counts, dtype="int64").reshape(-1, len(names))[column.codes]
    return {name: _counts(each[:, place].copy()) for place, name in enumerate(names)}


def _ids(heading: str, column: Ids, names: Sequence[str]) -> dict[str, Any]:
    if column.odd:
        message = f"{column.odd} in the column {heading}: it has no parts."
        warnings.warn(message, UnreadColumn, stacklevel=4)
    columns = {heading: _text(column.texts())}
    columns |= zip(names, map(_counts, column.numbers()), strict=False)
    if names[3:]:
        columns[names[3]] = _word(column.steps.coded())
    return columns


def _counts(whole: Any) -> Any:
    absent = whole == NOTHING
    whole[absent] = 1
    return pd.arrays.IntegerArray(whole, absent)


def _numbers(column: Coded) -> Any:
    """Whole numbers where all are, as PRIORITY is with `%Q`; fractions else, as with `%p`."""
    found = [values.number(word) for word in column.words]
    if all(one is None or one.is_integer() for one in found):
        return _counts(column.values(lambda word: None if (one := values.number(word)) is None else int(one)))
    return _fractions(found, column)


def _fractions(found: list[float | None], column: Coded) -> Any:
    return pd.array(found, dtype="Float64").take(column.codes)


def _durations(milliseconds: Any) -> Any:
    return pd.array(milliseconds.view("timedelta64[ms]"))


def _moments(seconds: Any, zone: tzinfo) -> Any:
    return pd.DatetimeIndex(seconds.view("datetime64[s]"), tz="UTC").tz_convert(zone)


def moments_s(digits: Any) -> Any:
    """squeue's zero is a job that has no such time."""
    digits[digits == 0] = NOTHING
    return digits


def durations_ms(digits: Any) -> Any:
    """Of `1-02:03:04`, which is 1002003004 here."""
    days, hours = digits // 10**9, digits // 10**6 % 1000
    return (((days * 24 + hours) * 60 + digits // 1000 % 1000) * 60 + digits % 1000) * 1000


def _times(factor: int) -> Callable[[Any], Any]:
    """Numbers that count so much each."""
    return lambda digits: digits * factor


# By their words, for what is kept for each word once is read once.
_BY_WORDS = frozenset({Kind.WORD, Kind.NUMBER, Kind.FRACTION})
# What becomes of the digits, and of any other word, and of all of them.
_READERS: dict[Kind, tuple[Callable[[Any], Any], Callable[[str], int | None], Callable[[Any], Any]]] = {
    Kind.COUNT: (_times(1), values.count, _counts),
    Kind.SIZE: (_times(1), values.size, _counts),
    Kind.MEGABYTES: (_times(2**20), values.megabytes, _counts),
    Kind.SECONDS: (_times(1000), values.seconds_ms, _durations),
    Kind.MINUTES: (_times(60_000), values.minutes_ms, _durations),
    Kind.DURATION: (durations_ms, values.duration_ms, _durations),
}
