"""Sums, differences and products, generated from a seed.

Held-out and training problems are disjoint up to the order of the operands: if 3 + 4 is held out, neither it nor
4 + 3 is trained on. The larger operand of a subtraction comes first, so that the order makes no answer negative.
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
    """Return the options of the task. Raises ConfigError for invalid options. Generates no problems."""
    options = options_of(ArithmeticOptions, config)
    if options.low > options.high:
        raise ConfigError(Refusal("task.options.low", f"must not be above high ({options.high})", options.low))
    if len(options.operations) > 1 and "{op}" not in options.template:
        message = "must contain {op}, because there are several operations"
        raise ConfigError(Refusal("task.options.template", message, options.template))
    pairs = len(options.operations) * options.numbers * (options.numbers + 1) // 2
    if config.held_out >= pairs:
        ops = " ".join(options.operations)
        raise ConfigError(
            Refusal(
                "task.held_out",
                f"the numbers {options.low} to {options.high} make {pairs} different problems with {ops} (3 + 4 and "
                f"4 + 3 count as one), and some must remain for training; hold out at most {pairs - 1}, or widen the "
                "range from task.options.low to task.options.high",
                config.held_out,
            )
        )
    return options


def load(config: TaskConfig, seed: int) -> TaskData:
    """Generate the problems of the task. The same seed gives the same problems in every process.

    All distinct problems are equally likely, both for training and for the held-out part. A pair of operands is held
    out in one order only. Raises ConfigError as ``check`` does.
    """
    options = check(config)
    # Among 2 n distinct problems, at least n differ in more than the order of the operands, and n pairs make at most
    # 2 n problems. So this many extra draws always suffice, and a wide range never has to be enumerated.
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
    """Return ``count`` distinct problems (a, op, b) in random order, or all of them if there are fewer."""
    n = options.numbers
    sizes = {op: n * (n + 1) // 2 if op == "-" else n * n for op in options.operations}
    total = sum(sizes.values())
    return [_place(options, sizes, index) for index in rng.sample(range(total), min(count, total))]


def _place(options: ArithmeticOptions, sizes: dict[str, int], index: int) -> tuple[int, str, int]:
    """Return the problem at an index in the list of all problems, without building that list."""
    for op, size in sizes.items():
        if index < size:
            if op == "-":
                # The pairs form a triangle: row a has the pairs of a with 0..a and begins at index a (a + 1) / 2.
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
