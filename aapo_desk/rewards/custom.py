"""Custom rewards: a function in a user's file, ``FILE.py:FUNCTION``.

    def function(completion: str, answer: str) -> float | None: ...

The function may have more parameters: ``problem`` (text), ``tokens`` and ``max_tokens`` (counts), ``truncated`` (bool),
and the options of the reward in the configuration. It returns a finite number, or None for "cannot judge". It runs in a
worker process, one completion at a time, under the pool's time and memory limits. Its printed output is dropped.
``random`` is seeded from the completion, so that a resumed run gets the same scores. The function can import the Python
files in its folder.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from aapo_desk.rewards.base import Completion, Refusal, RefusedError, Scorer, nearest, one_line

CONTEXT = ("problem", "tokens", "max_tokens", "truncated")


@dataclass(frozen=True)
class Custom:
    """A function in a file, with the text that the file had when the run started."""

    path: str
    function: str
    source: str


def is_custom(name: str) -> bool:
    """Return whether a name refers to a file, even if it is not a valid ``FILE.py:FUNCTION``."""
    return ":" in name or "/" in name or name.endswith(".py")


def find(name: str) -> Custom:
    """Read the file that ``name`` refers to. Raises RefusedError if it does not exist or is not Python text."""
    file, _, function = name.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise RefusedError(Refusal(None, "a custom reward must be FILE.py:FUNCTION, such as rewards.py:score"))
    path = Path(os.path.expanduser(file)).absolute()  # noqa: PTH111 - pathlib raises if ~name is no user
    try:
        source = importlib.util.decode_source(path.read_bytes())
    except FileNotFoundError:
        raise RefusedError(Refusal(None, f"there is no file {path}")) from None
    except OSError as error:
        raise RefusedError(Refusal(None, f"{path} cannot be read: {error.strerror or error}")) from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise RefusedError(Refusal(None, f"{path} is not Python text: {error}")) from None
    return Custom(str(path), function, source)


def load(custom: Custom, options: Mapping[str, Any]) -> Scorer:
    """Load the reward in the worker. Raises RefusedError if it cannot be imported or its parameters do not fit."""
    function = _function(_execute(custom), custom)
    names = _accepted(function, options)

    def score(completion: Completion) -> object:
        context = {name: getattr(completion, name) for name in names}
        return function(completion.text, completion.answer, **context, **options)

    return score


def _execute(custom: Custom) -> ModuleType:
    path = Path(custom.path)
    module = ModuleType(f"aapo_desk_custom_{path.stem}")
    module.__file__ = custom.path
    sys.modules[module.__name__] = module  # dataclasses, for one, look up the module of a class
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        exec(compile(custom.source, custom.path, "exec"), module.__dict__)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 (sys.exit() at import must be reported too)
        raise RefusedError(Refusal(None, f"cannot be imported: {describe(error, custom.path)}")) from None
    return module


def _function(module: ModuleType, custom: Custom) -> Callable[..., object]:
    function = getattr(module, custom.function, None)
    where = Path(custom.path).name
    if function is None:
        own = [name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
        has = f"it has {', '.join(own)}" if own else "it has no functions"
        message = one_line(f"{where} has no function {custom.function}; {has}")
        raise RefusedError(Refusal(None, message, None, nearest(custom.function, own)))
    if not callable(function) or inspect.iscoroutinefunction(function):
        kind = "an async function" if callable(function) else f"of type {type(function).__name__}"
        raise RefusedError(Refusal(None, f"{custom.function} in {where} is {kind}, not a plain function"))
    return function  # type: ignore[no-any-return]


def _accepted(function: Callable[..., object], options: Mapping[str, Any]) -> list[str]:
    """Return the names in ``CONTEXT`` that the function takes. Raises RefusedError if its signature does not fit."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise RefusedError(Refusal(None, "its parameters cannot be determined; wrap it in a Python function")) from None
    positional = [item for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 2 and not any(item.kind is item.VAR_POSITIONAL for item in parameters):
        raise RefusedError(Refusal(None, "must take two arguments: the text of the completion and the right answer"))
    first_two = [item.name for item in positional[:2]]
    by_name = [item for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
    keywords = {item.name: item for item in by_name if item.name not in first_two}
    takes_all = any(item.kind is item.VAR_KEYWORD for item in parameters)
    refusals = []
    for option in options:
        if option in (*CONTEXT, *first_two):
            refusals.append(Refusal(option, "is passed to the function anyway; rename the option"))
        elif option not in keywords and not takes_all:
            own = [name for name in keywords if name not in CONTEXT]
            refusals.append(Refusal(option, "the function has no such argument", None, nearest(option, own)))
    for name, item in keywords.items():
        if item.default is item.empty and name not in CONTEXT and name not in options:
            refusals.append(Refusal(name, f"is missing: the function needs the argument {name}"))
    if any(item.kind is item.POSITIONAL_ONLY and item.default is item.empty for item in positional[2:]):
        refusals.append(Refusal(None, "requires a third positional argument, but only two are passed"))
    if refusals:
        raise RefusedError(*refusals)
    return [name for name in CONTEXT if name not in first_two and (takes_all or name in keywords)]


def describe(error: BaseException, path: str | None = None) -> str:
    """Return an exception on one line, such as ``ValueError: bad thing (line 12)``.

    The line number is that of the innermost frame in the file ``path``.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 (a user's exception class may fail to convert to text)
        text = ""
    if isinstance(error, SyntaxError):
        lines = [error.lineno] if error.filename == path else []
        text = error.msg
    else:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    place = f" (line {lines[-1]})" if lines else ""
    name = type(error).__name__
    return one_line(f"{name}: {text}" if text else name) + place
