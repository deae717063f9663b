"""A string that does not show itself."""

from __future__ import annotations

import hmac


class Secret:
    """Holds a password, token or key. `repr`, `str` and formatting never show it; `reveal()` does.

    It has no `__dict__`, cannot be pickled, and compares in constant time.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself. Pass it on at once; keep it in no other variable."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # surrogatepass: JSON may carry half of a pair, and a comparison must not fail on it.
        mine, theirs = (secret._value.encode("utf-8", "surrogatepass") for secret in (self, other))
        return hmac.compare_digest(mine, theirs)

    __hash__ = None  # type: ignore[assignment]  # a hash table would leak equality by timing

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not pickled")
