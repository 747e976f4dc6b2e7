"""Sums, differences and products, made up from a seed.

Held-out and training problems are disjoint up to the order of the operands: where 3 + 4 is held out, neither it nor
4 + 3 is trained on. Of a subtraction's two operands the larger comes first, so no answer is made negative by the order.
"""

from __future__ import annotations

import math
import random
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from aapo_desk.config import ConfigError, Int, Section, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.generated import options_of, plain_template, signs
from aapo_desk.tasks.records import Problem, TaskData

LARGEST = 10**8


def _signs(value: Any) -> list[str]:
    return signs(value, ("+", "-", "*"))


class ArithmeticOptions(Section):
    """``task.options`` of arithmetic."""

    operations: Annotated[list[str], BeforeValidator(_signs)] = Field(["+"])
    low: Int = Field(1, ge=-LARGEST, le=LARGEST)
    high: Int = Field(20, ge=-LARGEST, le=LARGEST)
    problems: Int = Field(1000, ge=1)
    template: str = "What is {a} {op} {b}? Answer with just the number."

    @field_validator("template")
    @classmethod
    def _template_is_plain(cls, template: str) -> str:
        return plain_template(template, ("a", "b"), ("op",))

    @property
    def numbers(self) -> int:
        return self.high - self.low + 1


def check(config: TaskConfig) -> ArithmeticOptions:
    """The options of the task. Raises ConfigError for options that make no task, without making a problem."""
    options = options_of(ArithmeticOptions, config)
    if options.low > options.high:
        raise ConfigError(Refusal("task.options.low", f"must not be above high ({options.high})", options.low))
    if len(options.operations) > 1 and "{op}" not in options.template:
        message = "must hold {op}, since there are several operations"
        raise ConfigError(Refusal("task.options.template", message, options.template))
    pairs = len(options.operations) * options.numbers * (options.numbers + 1) // 2
    if config.held_out >= pairs:
        ops = " ".join(options.operations)
        raise ConfigError(
            Refusal(
                "task.held_out",
                f"the numbers {options.low} to {options.high} make {pairs} different problems with {ops} (3 + 4 and "
                f"4 + 3 count as one), and some must be left to train on; hold out {pairs - 1} at the most, or widen "
                "task.options.low and task.options.high",
                config.held_out,
            )
        )
    return options


def load(config: TaskConfig, seed: int) -> TaskData:
    """Problems of the task, the same for the same seed in every process. Raises ConfigError as ``check`` does.

    Every different problem is equally likely, on both sides; an operand pair is held out in one order only.
    """
    options = check(config)
    # Of 2 n different problems, at least n differ in more than the order, and n pairs hold at most 2 n problems:
    # so these many draws always suffice, and a wide range is never listed.
    spare = 2 * config.held_out
    held_out: dict[tuple[str, int, int], tuple[int, str, int]] = {}
    for a, op, b in _draw(options, spare, random.Random(f"arithmetic held out {seed}")):
        if len(held_out) < config.held_out:
            held_out.setdefault(_key(a, op, b), (a, op, b))
    drawn = _draw(options, options.problems + spare, random.Random(f"arithmetic train {seed}"))
    train = [triple for triple in drawn if _key(*triple) not in held_out]
    return TaskData(
        train=[_problem(options, *triple) for triple in train[: options.problems]],
        held_out=[_problem(options, *triple) for triple in held_out.values()],
    )


def _draw(options: ArithmeticOptions, count: int, rng: random.Random) -> list[tuple[int, str, int]]:
    """``count`` different problems (a, op, b) in random order, or all there are."""
    n = options.numbers
    sizes = {op: n * (n + 1) // 2 if op == "-" else n * n for op in options.operations}
    total = sum(sizes.values())
    return [_place(options, sizes, index) for index in rng.sample(range(total), min(count, total))]


def _place(options: ArithmeticOptions, sizes: dict[str, int], index: int) -> tuple[int, str, int]:
    """The problem at a place in the list of all of them, which is never made."""
    for op, size in sizes.items():
        if index < size:
            if op == "-":
                # Row a of the triangle holds the pairs of a with 0..a and begins at a (a + 1) / 2.
                a = (math.isqrt(8 * index + 1) - 1) // 2
                b = index - a * (a + 1) // 2
            else:
                a, b = divmod(index, options.numbers)
            return a + options.low, op, b + options.low
        index -= size
    raise IndexError(index)


def _key(a: int, op: str, b: int) -> tuple[str, int, int]:
    return op, min(a, b), max(a, b)


def _problem(options: ArithmeticOptions, a: int, op: str, b: int) -> Problem:
    answer = {"+": a + b, "-": a - b, "*": a * b}[op]
    text = options.template.format(a=a, op=op, b=b)
    return Problem(f"{a}{op}{b}", text, str(answer), solution=str(answer))
