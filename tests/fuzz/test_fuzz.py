"""A few inputs of each kind in every run of the suite; many: ``python -m tests.fuzz``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.fuzz.running import try_out
from tests.fuzz.targets import TARGETS, forget

EXAMPLES = {"run directories": 10, "completions": 8}


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_brings_a_traceback_or_is_written_elsewhere(
    name: str, tmp_path: Path, desk_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AAPO_DESK_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    forget()
    try:
        wanted = EXAMPLES.get(name, 40)
        tried = try_out(TARGETS[name], wanted, tmp_path)
    finally:
        forget()
    assert tried >= wanted // 2
