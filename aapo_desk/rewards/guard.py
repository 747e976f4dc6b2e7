"""Keeps a scorer that hands texts to ``eval`` from running them as code.

Some of reasoning-gym's scorers give a completion's answer to Python's ``eval``, others to ``sympy.parse_expr``, which
runs what it reads. While ``only_formulas`` is entered, code made from a text runs only where the names in it are those
of sympy's numbers and functions or single letters: no attribute, no import, no function of Python's. Anything else
raises NameError in the scorer, before it runs, and the scorer sees an answer that cannot be read.

It stands on Python's audit event ``exec``, which comes with the code before every ``eval`` and ``exec`` (PEP 578).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import CodeType
from typing import Any

# What sympy's parser writes into the text itself, and "from sympy import *", which it runs first.
_PARSER = frozenset({"Integer", "Float", "Rational", "Symbol", "Function", "sympy"})
_OTHERS = frozenset({"pi", "oo", "GoldenRatio", "EulerGamma", "Catalan", "Integral", "Derivative", "Sum", "Product"})
_MADE_FROM_TEXT = "<string>"

_entered = False


@contextmanager
def only_formulas() -> Iterator[None]:
    """See the module. In one thread; not for code that has to import while it scores what it builds from texts."""
    global _entered
    _install()
    _entered = True
    try:
        yield
    finally:
        _entered = False


@cache
def _install() -> None:
    """A hook cannot be taken away again: it is there once and does nothing until it is wanted."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _entered or event != "exec":
        return
    code = arguments[0]
    if isinstance(code, CodeType) and code.co_filename == _MADE_FROM_TEXT and not _is_formula(code):
        raise NameError("text that is no formula is not run")


def _is_formula(code: CodeType) -> bool:
    names = {*code.co_names, *code.co_varnames}
    nested = any(isinstance(constant, CodeType) for constant in code.co_consts)
    return not nested and all(len(name) == 1 or name in _known() for name in names)


@cache
def _known() -> frozenset[str]:
    from sympy import functions  # type: ignore[import-untyped]

    return _PARSER | _OTHERS | frozenset(functions.__all__)
