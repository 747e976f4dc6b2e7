"""Try a target, and watch what files are opened for writing meanwhile."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.targets import Target

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NOWHERE = ("/dev/", "/proc/self/")

_watched: list[Path] = []
_outside: list[str] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _watched or event not in {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}:
        return
    path = arguments[1] if event == "os.rename" else arguments[0]
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
        return
    if not isinstance(path, str | os.PathLike):
        return
    place = os.path.abspath(os.fspath(path))  # noqa: PTH100 - a link that leads out is not followed
    if "__pycache__" in Path(place).parts:  # Python's own, of a module that is imported for the first time
        return
    if not any(Path(place).is_relative_to(allowed) for allowed in _watched) and not place.startswith(NOWHERE):
        _outside.append(f"{event} {place}")


@contextmanager
def written_inside(*allowed: Path) -> Iterator[list[str]]:
    """Inside, what this process writes elsewhere than in ``allowed`` is put on the list yielded."""
    if not getattr(_hook, "set", False):
        sys.addaudithook(_hook)  # for the rest of the process: there is no way to take it back
        _hook.set = True  # type: ignore[attr-defined]
    _watched.extend(allowed)
    try:
        yield _outside
    finally:
        _watched.clear()
        _outside.clear()


def try_out(target: Target, examples: int, folder: Path, seed: int | None = None) -> int:
    """Give ``examples`` inputs to a target; gives how many it was. Raises what it raised, or AssertionError."""
    tried = 0

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=seed is None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(target.drawn)
    def example(drawn: object) -> None:
        nonlocal tried
        tried += 1
        with tempfile.TemporaryDirectory(dir=folder) as own, written_inside(folder) as outside:
            target.work(drawn, Path(own))
            assert not outside, f"written elsewhere: {outside}"

    if seed is not None:
        from hypothesis import seed as seeded

        example = seeded(seed)(example)
    example()
    return tried
