"""Which global names a cell of Python uses and makes, and which it cannot run without. No I/O."""

from __future__ import annotations

import ast
import builtins
import dis
from dataclasses import dataclass
from types import CodeType

# IPython puts the first three there and takes the others away; a job has Python's own.
_BUILTIN = (set(dir(builtins)) - {"__IPYTHON__", "display", "get_ipython"}) | {"exit", "quit"}
# With one of these a cell may make names that nobody sees in it, or live without one.
_ANYTHING_GOES = frozenset((
    "BaseException", "Exception", "NameError", "__builtins__", "builtins", "eval", "exec", "globals",
    "locals", "vars",
))  # fmt: skip
_USES = frozenset({"DELETE_GLOBAL", "DELETE_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_GLOBAL", "LOAD_NAME"})
_MAKES = frozenset({"STORE_GLOBAL", "STORE_NAME"})
# Annotations of variables are noted there.
_OF_PYTHON = frozenset({"__annotations__"})


@dataclass(frozen=True, slots=True)
class CellNames:
    """Global names. `needed`: used outside of functions, and neither made in the cell nor Python's own."""

    used: frozenset[str]
    made: frozenset[str]
    needed: frozenset[str]


def names_of(cell: str) -> CellNames:
    """The names as Python's compiler sees them: variables of functions and comprehensions are not among them.

    What a class makes in its body counts as made, for it may hide a global one.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: It is no Python.
    """
    tree = ast.parse(cell, "<cell>")
    top = compile(cell, "<cell>", "exec", dont_inherit=True)  # sees more than the parser: a return, an await
    used, made, needed = set[str](), set[str](), set[str]()
    codes = [top]
    for code in codes:
        codes.extend(one for one in code.co_consts if isinstance(one, CodeType))
        steps = list(dis.get_instructions(code))
        made.update(step.argval for step in steps if step.opname in _MAKES)
        here = {step.argval for step in steps if step.opname in _USES} - _OF_PYTHON
        used |= here
        if code is top:
            needed = here
    if _may_make_any(tree) or not _ANYTHING_GOES.isdisjoint(used | made):
        needed = set()
    return CellNames(frozenset(used), frozenset(made), frozenset(needed - made - _BUILTIN))


def _may_make_any(tree: ast.Module) -> bool:
    """Whether a star in an import makes names, or an `except:` lives without one."""
    return any(
        (isinstance(node, ast.ImportFrom) and node.names[0].name == "*")
        or (isinstance(node, ast.ExceptHandler) and node.type is None)
        for node in ast.walk(tree)
    )
