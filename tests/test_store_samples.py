from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aapo_desk.store import Place, RunWriter, SampleReader, Span
from tests.tui import fixed_run

TEXTS = {
    1: ["seven", "a 50% chance"],
    2: ["six", "Seven again"],
    5: ["under_score", "nul\x00behind"],
    9: ["six", "last"],
}


@pytest.fixture
def writer(desk_home: Path) -> Iterator[RunWriter]:
    """A run whose steps 1, 2, 5 and 9 have two pairs of completions each."""
    made = RunWriter(fixed_run.new_run("texts"))
    blank = fixed_run.step_record(1).samples[0]
    for step, texts in TEXTS.items():
        samples = [
            replace(
                blank,
                step=step,
                row=row,
                prompt="?",
                completion=text if side == row % 2 else "",
                is_reference=bool(side),
            )
            for row, text in enumerate(texts)
            for side in (0, 1)
        ]
        made.write_step(replace(fixed_run.step_record(step), samples=samples))
    yield made
    made.close()


@pytest.fixture
def reader(writer: RunWriter) -> SampleReader:
    return SampleReader(writer.run)


def always(step: int) -> bool:
    return True


def find(reader: SampleReader, text: str, step: int, row: int, forward: bool = True) -> Place | None:
    return reader.find(text, Place(step, row), forward, always)


def test_the_span_goes_from_the_first_to_the_last_step_and_tells_the_generation(
    reader: SampleReader, writer: RunWriter
) -> None:
    assert reader.stored_span() == Span(1, 9, 1)
    writer.rewind(5)
    assert reader.stored_span() == Span(1, 5, 2)


def test_a_run_without_samples_has_no_span_no_steps_and_nothing_to_find(desk_home: Path) -> None:
    reader = SampleReader(fixed_run.new_run("empty"))
    assert reader.stored_span() is None
    RunWriter(reader.run).close()
    assert (reader.stored_span(), reader.step_near(1, True), find(reader, "a", 1, 0)) == (None, None, None)


@pytest.mark.parametrize(
    ("step", "forward", "near"),
    [(2, True, 2), (3, True, 5), (3, False, 2), (10, True, 9), (0, False, 1), (5, False, 5)],
)
def test_the_nearest_step_with_samples_is_found_either_way(
    reader: SampleReader, step: int, forward: bool, near: int
) -> None:
    assert reader.step_near(step, forward) == near


def test_finds_go_on_from_place_to_place_and_round_the_end(reader: SampleReader) -> None:
    assert find(reader, "seven", 1, -1) == Place(1, 0)
    assert find(reader, "seven", 1, 0) == Place(2, 1)  # in either case, in a reference's completion
    assert find(reader, "seven", 2, 1) == Place(1, 0)


def test_finds_go_back_and_round_the_beginning(reader: SampleReader) -> None:
    assert find(reader, "six", 9, 0, forward=False) == Place(2, 0)
    assert find(reader, "six", 2, 0, forward=False) == Place(9, 0)


@pytest.mark.parametrize("forward", [True, False])
def test_a_text_that_stands_in_one_place_only_is_found_again_there(reader: SampleReader, forward: bool) -> None:
    assert find(reader, "last", 9, 1, forward) == Place(9, 1)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("50%", Place(1, 1)),
        ("%", Place(1, 1)),
        ("r_s", Place(5, 0)),
        ("_", Place(5, 0)),
        ("behind", Place(5, 1)),
        ("\\", None),
    ],
)
def test_signs_of_patterns_are_ordinary_characters(reader: SampleReader, text: str, place: Place | None) -> None:
    assert find(reader, text, 1, -1) == place


def test_prompts_are_searched_too(reader: SampleReader) -> None:
    assert find(reader, "?", 2, 0) == Place(2, 1)


def test_a_search_over_many_steps_goes_in_ranges_and_can_be_ended(writer: RunWriter, reader: SampleReader) -> None:
    sample = fixed_run.step_record(1).samples[0]
    for step in range(10, 200):
        samples = [replace(sample, step=step, row=0, completion="the end" if step == 199 else "")]
        writer.write_step(replace(fixed_run.step_record(step), samples=samples))
    seen: list[int] = []

    def note(step: int) -> bool:
        seen.append(step)
        return len(seen) < 2

    assert find(reader, "the end", 1, 0) == Place(199, 0)
    assert reader.find("the end", Place(1, 0), True, note) is None
    assert seen == [1, 17]
