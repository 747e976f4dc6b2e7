"""Texts that a scorer would run as code are not run; formulas are read as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from aapo_desk.rewards.guard import only_formulas

HARMFUL = [
    "__import__('pathlib').Path({0!r}).touch()",
    "open({0!r}, 'w')",
    "[open({0!r}, 'w') for _ in 'a']",
    "(lambda: open({0!r}, 'w'))()",
    "f'{{open({0!r}, chr(119))}}'",
    "().__class__.__base__.__subclasses__()[0]('x', open({0!r}, 'w'))",
    "S('__import__(\"pathlib\").Path({0!r}).touch()')",
    "eval('open({0!r}, \"w\")')",
]


@pytest.mark.parametrize("text", HARMFUL)
def test_code_in_a_text_is_not_run_by_eval_or_by_sympy(tmp_path: Path, text: str) -> None:
    from sympy import S, parse_expr  # type: ignore[import-untyped]

    made = tmp_path / "made"
    for run in (lambda code: eval(code, {"S": S}), parse_expr):  # noqa: S307 - what is tested
        with only_formulas(), pytest.raises(Exception):  # noqa: B017 - each reads it in its own way
            run(text.format(str(made)))
        assert not made.exists()


def test_lists_and_formulas_are_read() -> None:
    from sympy import parse_expr

    with only_formulas():
        assert eval("[['Q', '_'], [1, -2.5]]") == [["Q", "_"], [1, -2.5]]  # noqa: S307
        assert parse_expr("3*x**2/4 + sin(2*x) - log(7) + C").free_symbols == {parse_expr("x"), parse_expr("C")}
        assert parse_expr("(3 + 4) * 5 / 2") == parse_expr("35/2")


def test_afterwards_everything_runs_again() -> None:
    with only_formulas():
        pass
    assert eval("len('abc')") == 3  # noqa: S307
