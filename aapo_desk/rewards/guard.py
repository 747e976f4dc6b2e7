"""A guard against scorers that pass a model's text to ``eval``: only formulas are run.

Some of reasoning-gym's scorers pass a completion's answer to Python's ``eval``, others to ``sympy.parse_expr``, which
executes what it reads. Inside ``only_formulas``, code compiled from text runs only if all its names are sympy's numbers
and functions or single letters: no attributes, no imports, no Python built-ins. Anything else raises NameError in the
scorer before it runs, and the scorer treats the answer as unreadable.

The guard uses Python's audit event ``exec``, which passes the code object before every ``eval`` and ``exec`` (PEP 578).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType
from typing import Any

# The names that sympy's parser inserts into the text, and those of "from sympy import *", which it runs first.
_PARSER = frozenset({"Integer", "Float", "Rational", "Symbol", "Function", "sympy"})
_OTHERS = frozenset({"pi", "oo", "GoldenRatio", "EulerGamma", "Catalan", "Integral", "Derivative", "Sum", "Product"})
_MADE_FROM_TEXT = "<string>"

_entered = False


@contextmanager
def only_formulas() -> Iterator[None]:
    """Allow only formulas to run inside this context; see the module's docstring.

    For a single thread, and not for code that compiles text with imports while it scores.
    """
    global _entered
    _install()
    _entered = True
    try:
        yield
    finally:
        _entered = False


@cache
def _install() -> None:
    """Install the audit hook once. It cannot be removed, so it does nothing unless ``only_formulas`` is active."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _entered or event != "exec":
        return
    code = arguments[0]
    if isinstance(code, CodeType) and code.co_filename == _MADE_FROM_TEXT and not _is_formula(code):
        raise NameError("refused to run text that is not a formula")


def _is_formula(code: CodeType) -> bool:
    names = {*code.co_names, *code.co_varnames}
    nested = any(isinstance(constant, CodeType) for constant in code.co_consts)
    return not nested and all(len(name) == 1 or name in _known() for name in names)


@cache
def _known() -> frozenset[str]:
    from sympy import functions  # type: ignore[import-untyped]

    return _PARSER | _OTHERS | frozenset(functions.__all__)
