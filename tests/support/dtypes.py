"""The types that the columns of a frame have, by what they hold: docs/reference/magics.md promises them."""

from __future__ import annotations

from slurm_magics.values import Kind

DTYPES = {
    Kind.TEXT: ("object", "str"), Kind.WORD: ("category",), Kind.COUNT: ("Int64",), Kind.SIZE: ("Int64",),
    Kind.MEGABYTES: ("Int64",), Kind.NUMBER: ("Int64", "Float64"), Kind.FRACTION: ("Float64",),
    Kind.MOMENT: ("datetime64[s, UTC]",),
    **dict.fromkeys((Kind.DURATION, Kind.SECONDS, Kind.MINUTES), ("timedelta64[ms]",)),
}  # fmt: skip
