from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aapo_desk.config import ConfigError, TaskConfig
from aapo_desk.tasks import Problem
from aapo_desk.tasks.prompts import Tokenizer, fit, refuse_empty, render

TEMPLATE = (
    "{% if refuse is defined %}{{ raise_exception('no ' + messages[0].role + ' role') }}{% endif %}"
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
)
PROBLEM = Problem("1+2", "What is 1 + 2?", "3")


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tiny_model)
    loaded.chat_template = TEMPLATE
    return loaded


def task(**settings: Any) -> TaskConfig:
    return TaskConfig(source="arithmetic", **settings)


def text(tokenizer: Any, config: TaskConfig, **options: Any) -> str:
    tokens = render(tokenizer, PROBLEM, config, options)
    assert type(tokens) is list
    assert all(type(token) is int for token in tokens)
    return str(tokenizer.decode(tokens))


def test_a_prompt_is_the_problem_in_the_chat_template_up_to_the_answer(tokenizer: Any) -> None:
    assert text(tokenizer, task()) == "[user] What is 1 + 2?\n[assistant] "


def test_a_system_prompt_comes_before_the_problem(tokenizer: Any) -> None:
    assert text(tokenizer, task(system_prompt="Be brief.")).startswith("[system] Be brief.\n[user] What")


def test_an_empty_system_prompt_is_one_too(tokenizer: Any) -> None:
    assert text(tokenizer, task(system_prompt="")).startswith("[system] \n[user] What")


def test_template_options_reach_the_template(tokenizer: Any) -> None:
    assert text(tokenizer, task(), enable_thinking=False).endswith("[assistant] <think></think>")


def test_template_options_cannot_take_away_what_makes_it_a_prompt(tokenizer: Any) -> None:
    options = {"add_generation_prompt": False, "tokenize": False, "return_dict": True}
    assert text(tokenizer, task(), **options) == text(tokenizer, task())


def test_a_tokenizer_without_a_template_gets_plain_text(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(tiny_model)
    plain.chat_template = None
    assert text(plain, task()) == "What is 1 + 2?\n"
    assert text(plain, task(system_prompt="Be brief.")) == "Be brief.\n\nWhat is 1 + 2?\n"


def test_a_template_that_refuses_the_system_prompt_is_named(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"task\.system_prompt = 'Be brief\.': .* refuses the prompt: no system role"):
        text(tokenizer, task(system_prompt="Be brief."), refuse=True)


def test_prompts_longer_than_allowed_are_dropped_and_counted(tokenizer: Tokenizer) -> None:
    problems = [Problem(str(n), "1" * n, "1") for n in (3, 50, 4, 60, 5)]
    lengths = [len(render(tokenizer, problem, task(), {})) for problem in problems]
    kept = fit(tokenizer, problems, task(max_prompt_tokens=lengths[4]), {})
    assert [problem.id for problem in kept.problems] == ["3", "4", "5"]
    assert [len(prompt) for prompt in kept.prompts] == [lengths[0], lengths[2], lengths[4]]
    assert (kept.dropped, kept.longest, kept.shortest) == (2, lengths[4], lengths[0])


def test_prompts_shorter_than_wanted_are_dropped_and_counted_apart(tokenizer: Tokenizer) -> None:
    problems = [Problem(str(n), "1" * n, "1") for n in (3, 50, 4, 60, 5)]
    length = len(render(tokenizer, problems[4], task(), {}))
    kept = fit(tokenizer, problems, task(min_prompt_tokens=length, max_prompt_tokens=length), {})
    assert [problem.id for problem in kept.problems] == ["5"]
    assert (kept.too_short, kept.too_long) == (2, 2)
    none = fit(tokenizer, problems[:4], task(min_prompt_tokens=length, max_prompt_tokens=length), {})
    with pytest.raises(ConfigError, match="2 of 4 prompts are shorter, the others longer than max_prompt_tokens"):
        refuse_empty(task(min_prompt_tokens=length, max_prompt_tokens=length), none)


def test_where_no_prompt_fits_the_shortest_length_is_known(tokenizer: Tokenizer) -> None:
    nothing = fit(tokenizer, [PROBLEM], task(max_prompt_tokens=1), {})
    assert (nothing.problems, nothing.prompts, nothing.dropped, nothing.longest) == ([], [], 1, 0)
    assert nothing.shortest == len(render(tokenizer, PROBLEM, task(), {}))
