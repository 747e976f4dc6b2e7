"""Countdown: make the target out of some numbers. Generated from a seed, solvable by construction.

The numbers of a problem are drawn at random and joined two at a time by random operations until one number is left: the
target. Each step gives a whole number above 0, as in the television game. So no search is needed, and a solution is
known.

The right answer is written as ``98 from 44, 19, 35``, which the ``countdown`` reward reads. It says ``from some of`` if
numbers may be left out, and ends with ``by + -`` if not all four operations are allowed.

The worked solution repeats the steps by which the problem was made, formatted by the option ``solution``: by default
with the think and answer tags that the question asks for. If you change ``template``, change ``solution`` to match.

Held-out and training problems are disjoint: no problem has the same numbers, in any order, and the same target as one
on the other side.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from aapo_desk.config import ConfigError, Int, Section, TaskConfig
from aapo_desk.config import Problem as Refusal
from aapo_desk.tasks.generated import in_words, options_of, plain_template, signs
from aapo_desk.tasks.records import Problem, TaskData

OPERATIONS = ("+", "-", "*", "/")
LARGEST = 10**6
_DRAWS = 200
"""Random draws per requested problem before the generator concludes that there are no more problems."""

Key = tuple[int, tuple[int, ...]]
"""The target and the sorted numbers. Two problems with the same key are the same problem."""


@dataclass(frozen=True)
class Joined:
    """The result of joining numbers: its value, the expression, and the steps, such as ``44 + 19 = 63``."""

    value: int
    expression: str
    steps: tuple[str, ...] = ()

    @property
    def operand(self) -> str:
        return f"({self.expression})" if self.steps else self.expression


@dataclass(frozen=True)
class Drawn:
    """The numbers of a problem in the order of the question, and how they make the target."""

    numbers: list[int]
    way: Joined


def _signs(value: Any) -> list[str]:
    return signs(value, OPERATIONS)


def _counts(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class CountdownOptions(Section):
    """``task.options`` of countdown."""

    numbers: Annotated[list[Annotated[Int, Field(ge=2, le=8)]], BeforeValidator(_counts)] = Field([3, 4], min_length=1)
    """How many numbers a problem has. Each of these counts is equally likely."""
    low: Int = Field(1, ge=1, le=LARGEST)
    high: Int = Field(99, ge=1, le=LARGEST)
    target_low: Int = Field(10, ge=1, le=LARGEST)
    target_high: Int = Field(100, ge=1, le=LARGEST)
    operations: Annotated[list[str], BeforeValidator(_signs)] = Field(list(OPERATIONS))
    all_numbers: bool = True
    """True if every number must be used."""
    problems: Int = Field(1000, ge=1)
    template: str = (
        "Make {target} out of the numbers {numbers}. Use each number {once}, with {operations} and brackets. "
        "Think inside <think> </think>, then give the expression inside <answer> </answer>, "
        "such as <answer>(7 + 2) - 3</answer>."
    )
    solution: str = "<think>{steps}</think>\n<answer>{expression}</answer>"
    """The text that a warm start teaches the model to write."""

    @field_validator("template")
    @classmethod
    def _template_is_plain(cls, template: str) -> str:
        return plain_template(template, ("numbers", "target"), ("once", "operations"))

    @field_validator("solution")
    @classmethod
    def _solution_is_plain(cls, solution: str) -> str:
        return plain_template(solution, ("expression",), ("steps", "target"))


def check(config: TaskConfig) -> CountdownOptions:
    """Return the options of the task. Raises ConfigError for invalid options. Generates no problems."""
    options = options_of(CountdownOptions, config)
    for prefix in ("", "target_"):
        low, high = getattr(options, f"{prefix}low"), getattr(options, f"{prefix}high")
        if low > high:
            raise ConfigError(Refusal(f"task.options.{prefix}low", f"must not be above {prefix}high ({high})", low))
    return options


def load(config: TaskConfig, seed: int) -> TaskData:
    """Generate the problems of the task. The same seed gives the same problems in every process.

    There are ``options.problems`` training problems, or fewer if no more are found. Raises ConfigError as ``check``
    does, and if too few distinct problems are found for the held-out part and at least one training problem.
    """
    options = check(config)
    held_out = _draw(options, config.held_out, random.Random(f"countdown held out {seed}"), {})
    train = _draw(options, options.problems, random.Random(f"countdown train {seed}"), held_out)
    if len(held_out) < config.held_out or not train:
        raise _too_few(config, options, len(held_out) + len(train))
    return TaskData(
        train=[_problem(options, key, drawn) for key, drawn in train.items()],
        held_out=[_problem(options, key, drawn) for key, drawn in held_out.items()],
    )


def _draw(options: CountdownOptions, count: int, rng: random.Random, without: dict[Key, Drawn]) -> dict[Key, Drawn]:
    """Return ``count`` distinct problems that are not in ``without``, or those found in ``count * _DRAWS`` draws."""
    drawn: dict[Key, Drawn] = {}
    for _ in range(count * _DRAWS):
        if len(drawn) == count:
            break
        numbers = [rng.randint(options.low, options.high) for _ in range(rng.choice(options.numbers))]
        way = _joined(numbers, options.operations, rng)
        if way is None or not options.target_low <= way.value <= options.target_high:
            continue
        key = way.value, tuple(sorted(numbers))
        trivial = not options.all_numbers and way.value in numbers
        if key not in without and not trivial:
            drawn.setdefault(key, Drawn(numbers, way))
    return drawn


def _joined(numbers: list[int], operations: list[str], rng: random.Random) -> Joined | None:
    """Join the numbers by random operations. Returns None if a step does not give a whole number above 0."""
    rest = [Joined(number, str(number)) for number in numbers]
    while len(rest) > 1:
        one, other = (rest.pop(rng.randrange(len(rest))) for _ in range(2))
        a, b, sign = one.value, other.value, rng.choice(operations)
        match sign:
            case "+":
                result = a + b
            case "-":
                result = a - b
            case "*":
                result = a * b
            case _:
                result = 0 if a % b else a // b
        if result < 1:
            return None
        step = f"{a} {sign} {b} = {result}"
        rest.append(Joined(result, f"{one.operand} {sign} {other.operand}", (*one.steps, *other.steps, step)))
    return rest[0]


def _problem(options: CountdownOptions, key: Key, drawn: Drawn) -> Problem:
    (target, in_order), numbers = key, drawn.numbers
    text = options.template.format(
        target=target,
        numbers=in_words([str(number) for number in numbers]),
        once="exactly once" if options.all_numbers else "at most once",
        operations=in_words(options.operations),
    )
    some = "" if options.all_numbers else "some of "
    by = "" if set(options.operations) == set(OPERATIONS) else f" by {' '.join(options.operations)}"
    answer = f"{target} from {some}{', '.join(map(str, numbers))}{by}"
    solution = options.solution.format(expression=drawn.way.expression, steps=", ".join(drawn.way.steps), target=target)
    return Problem(f"{target}={','.join(map(str, in_order))}", text, answer, solution=solution)


def _too_few(config: TaskConfig, options: CountdownOptions, found: int) -> ConfigError:
    if not found:
        message = (
            f"no problem was found: the numbers {options.low} to {options.high}, {_either(options.numbers)} of them "
            f"with {' '.join(options.operations)}, hardly ever make {options.target_low} to {options.target_high}; "
            "change task.options.target_low and task.options.target_high, or the numbers"
        )
        return ConfigError(Refusal("task.options", message))
    message = (
        f"only {found} different problems were found with the options of countdown, and some must remain for training; "
        f"hold out at most {found - 1}, or raise task.options.high or task.options.target_high"
    )
    return ConfigError(Refusal("task.held_out", message, config.held_out))


def _either(counts: list[int]) -> str:
    return " or ".join(map(str, counts))
