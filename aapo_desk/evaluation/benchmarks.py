"""The tasks that ``--task`` knows by name: their data sets on the hub, their columns, and how long an answer may be.

The five tasks that AAPO's authors report (arXiv 2505.14264) are read from the same data sets that the authors'
evaluation reads (JianxXiong/AAPO, open-rs/evaluate.py). Their figures were measured with 32768 new tokens at
temperature 0.6 and top-p 0.95, and with a prompt of their own. Our results record the settings that they were measured
with and are not comparable to theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SYSTEM_PROMPT = r"Please reason step by step, and put your final answer within \boxed{}."
MAX_PROMPT_TOKENS = 4096
"""Longer than the longest prompt of every benchmark: leaving a problem out would change the benchmark."""


@dataclass(frozen=True)
class Benchmark:
    """One named task. ``options`` become the configuration's ``task.options``."""

    name: str
    title: str
    source: str
    split: str
    problem_column: str = "problem"
    answer_column: str = "answer"
    max_new_tokens: int = 4096
    options: Mapping[str, str] = field(default_factory=dict)
    in_box: bool = False
    r"""True if the answer column holds a worked solution, whose last ``\boxed{}`` contains the answer."""


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "gsm8k",
            "grade-school word problems, 1319",
            "hub:openai/gsm8k",
            "test",
            "question",
            max_new_tokens=512,
            options={"config": "main"},
        ),
        Benchmark("svamp", "short word problems, 300", "hub:ChilleD/SVAMP", "test", "question_concat", "Answer", 256),
        Benchmark("math500", "MATH test problems, 500", "hub:HuggingFaceH4/MATH-500", "test", max_new_tokens=2048),
        Benchmark("aime24", "AIME 2024, 30", "hub:HuggingFaceH4/aime_2024", "train"),
        Benchmark("amc23", "AMC 2023, 40", "hub:knoveleng/AMC-23", "train"),
        Benchmark(
            "minerva",
            "university science, 272",
            "hub:knoveleng/Minerva-Math",
            "train",
            answer_column="solution",
            max_new_tokens=2048,
            in_box=True,
        ),
        Benchmark("olympiadbench", "olympiads, 675", "hub:knoveleng/OlympiadBench", "train", "question"),
    )
}


def last_box(text: str) -> str:
    r"""Return the content of the last ``\boxed{}`` of a worked solution; the whole text if there is none."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return text
    begin = start + len(r"\boxed{")
    depth = 1
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return text
