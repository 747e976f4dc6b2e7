from __future__ import annotations

from pathlib import Path

import pytest

from aapo_desk.config import resolve
from aapo_desk.store import RunDirectory, RunReader, RunWriter, StepRecord, Trend, create_run
from aapo_desk.store.trend import MOST_POINTS


@pytest.fixture
def run(desk_home: Path) -> RunDirectory:
    return create_run(resolve({"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}}))


def write(run: RunDirectory, first: int, last: int, shift: float = 0.0) -> None:
    """Steps whose reward is their number plus ``shift``."""
    writer = RunWriter(run)
    writer._connection.execute("PRAGMA synchronous=OFF")
    for step in range(first, last + 1):
        writer.write_step(StepRecord(step, 0.0, {"reward": step + shift}, {}, []))
    writer.close()


def test_a_short_run_is_read_step_by_step(run: RunDirectory) -> None:
    write(run, 1, 5)
    trend = RunReader(run).trend("reward", Trend())
    assert trend.values == [1, 2, 3, 4, 5]
    assert trend.last == (5, 5)


def test_a_long_run_gives_few_points_evenly_spaced_and_its_last(run: RunDirectory) -> None:
    write(run, 1, 1001)
    trend = RunReader(run).trend("reward", Trend())
    assert trend.stride == 8
    assert trend.values == [*range(8, 1001, 8), 1001]
    assert len(trend.points) <= MOST_POINTS


def test_what_is_known_is_not_read_again_and_growing_gives_what_reading_all_gives(run: RunDirectory) -> None:
    reader, trend = RunReader(run), Trend()
    for first, last in ((1, 3), (4, 130), (131, 131), (132, 600)):
        write(run, first, last)
        trend = reader.trend("reward", trend)
        assert trend == RunReader(run).trend("reward", Trend())
    marked = Trend(trend.generation, trend.stride, ((trend.stride, -1.0), *trend.points[1:]), trend.last)
    write(run, 601, 610)
    assert reader.trend("reward", marked).points[0] == (trend.stride, -1.0)


def test_a_rewound_run_is_read_anew(run: RunDirectory) -> None:
    write(run, 1, 20)
    reader = RunReader(run)
    before = reader.trend("reward", Trend())
    writer = RunWriter(run)
    writer.rewind(10)
    writer.close()
    write(run, 11, 12, shift=0.5)
    assert reader.trend("reward", before).values == [*range(1, 11), 11.5, 12.5]


def test_a_step_without_the_metric_is_a_gap(run: RunDirectory) -> None:
    writer = RunWriter(run)
    for step, reward in ((1, 0.5), (2, float("nan")), (3, 0.7)):
        writer.write_step(StepRecord(step, 0.0, {"reward": reward}, {}, []))
    writer.close()
    assert RunReader(run).trend("reward", Trend()).values == [0.5, None, 0.7]


def test_before_the_first_step_there_is_nothing(run: RunDirectory) -> None:
    assert RunReader(run).trend("reward", Trend()).values == []
    RunWriter(run).close()
    assert RunReader(run).trend("reward", Trend()).last is None
