from __future__ import annotations

from aapo_desk.store import Budget, Delta, Event
from aapo_desk.tui.history import History


def steps(first: int, last: int, seconds: float = 10.0, **metrics: float | None) -> Delta:
    return Delta(metrics=[(step, step * seconds, {"reward": 0.5, **metrics}) for step in range(first, last + 1)])


def event(kind: str, when: float) -> Event:
    return Event(1, when, 0, kind, {})


def test_numbers_are_found_by_step() -> None:
    history = History()
    history.extend(steps(1, 3, loss=0.25))
    assert (history.first_step, history.last_step) == (1, 3)
    assert history.value("loss", 2) == 0.25
    assert history.value("loss", 9) is None
    assert history.value("never", 2) is None


def test_a_metric_that_comes_late_or_is_null_is_missing_where_it_is() -> None:
    history = History()
    history.extend(steps(1, 2))
    history.extend(steps(3, 3, margin=0.1))
    history.extend(steps(4, 4, margin=None))
    assert [history.value("margin", step) for step in (1, 2, 3, 4)] == [None, None, 0.1, None]
    assert len(history.column("margin")) == 4


def test_a_reset_forgets_what_was_rewound() -> None:
    history = History()
    history.extend(steps(1, 9))
    rewound = steps(1, 4)
    rewound.reset = True
    history.extend(rewound)
    assert history.last_step == 4
    assert len(history.column("reward")) == 4


def test_time_between_a_crash_and_a_resume_is_not_training_time() -> None:
    history = History()
    history.extend(Delta(events=[event("started", 0.0)]))
    history.extend(steps(1, 5))  # until 50
    history.extend(Delta(events=[event("resumed", 1000.0)]))
    history.extend(Delta(metrics=[(6, 1010.0, {})]))
    assert history.elapsed(None) == 60.0
    assert history.elapsed(1015.0) == 65.0


def test_a_pause_is_not_training_time() -> None:
    history = History()
    history.extend(Delta(events=[event("started", 0.0)]))
    history.extend(steps(1, 5))  # until 50
    history.extend(Delta(events=[event("paused", 51.0)]))
    assert history.elapsed(None) == 51.0
    history.extend(Delta(events=[event("unpaused", 9000.0)]))
    history.extend(Delta(metrics=[(6, 9010.0, {})]))
    assert history.elapsed(9014.0) == 65.0


def test_time_between_a_checkpoint_and_its_fork_is_not_training_time() -> None:
    history = History()
    taken_along = steps(1, 5)  # until 50
    taken_along.events = [event("started", 0.0), event("forked", 9000.0)]
    history.extend(taken_along)
    history.extend(Delta(metrics=[(6, 9030.0, {})], events=[event("resumed", 9010.0)]))
    assert history.elapsed(None) == 70.0


def test_the_rest_takes_the_median_step_and_the_evaluations_to_come() -> None:
    history = History()
    parts = {"seconds_rollout": 3.0, "seconds_reward": 0.5, "seconds_update": 1.5}
    history.extend(steps(1, 10, **parts))
    history.extend(Delta(evaluations=[(0, "held_out", {"seconds": 20.0}), (10, "held_out", {"seconds": 20.0})]))
    assert history.remaining(40, evaluate_every=10, evaluated=False) == 150.0
    assert history.remaining(40, evaluate_every=10, evaluated=True) == 150.0 + 3 * 20.0
    assert history.remaining(40, evaluate_every=0, evaluated=True) == 150.0 + 20.0


def test_nobody_knows_the_rest_before_the_first_step() -> None:
    assert History().remaining(40, 0, False) is None


def test_a_history_that_replaces_another_goes_on_from_there() -> None:
    overview, whole = History(), History()
    overview.extend(steps(1, 2))
    whole.extend(steps(1, 5))
    overview.replace(whole)
    overview.extend(steps(6, 6, loss=0.5))
    assert list(overview.steps) == [1, 2, 3, 4, 5, 6]
    assert overview.value("loss", 6) == 0.5
    assert overview.elapsed(None) == 50.0


def test_with_a_budget_the_rest_is_what_is_left_of_it() -> None:
    history = History()
    history.extend(steps(1, 10, seconds_rollout=3.0, seconds_reward=0.5, seconds_update=1.5))
    assert history.remaining(10**6, 0, False, Budget("seconds", 80.0, 50.0)) == 30.0
    assert history.remaining(12, 0, False, Budget("seconds", 80.0, 50.0)) == 10.0  # its steps end it before
    assert history.remaining(10**6, 0, False, Budget("completions", 400, 160)) == 15 * 5.0  # 16 a step


def test_what_the_warm_start_alone_gave_is_kept_apart_from_the_base() -> None:
    history = History()
    history.extend(Delta(evaluations=[(0, "held_out", {"seconds": 1.0}), (0, "warm_start", {"seconds": 2.0})]))
    assert history.base() == {"seconds": 1.0}
    assert history.warm_start == {"seconds": 2.0}
    history.extend(Delta(reset=True))
    assert history.warm_start is None
