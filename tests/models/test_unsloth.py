"""unsloth brought into a process: absent, broken, or there. A module of its name stands for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aapo_desk.models import unsloth
from aapo_desk.models.unsloth import UnslothError

Write = Callable[[str], None]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the module that is imported for unsloth. The environment is as before afterwards."""
    before = dict(os.environ)
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> None:
        (tmp_path / "unsloth.py").write_text(text)

    yield write
    os.environ.clear()
    os.environ.update(before)
    sys.modules.pop("unsloth", None)


def test_absent_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unsloth", None)
    with pytest.raises(UnslothError, match=r"^is not installed \(pip install 'aapo-desk\[unsloth\]'\)$") as caught:
        unsloth.bring_in("auto")
    assert not caught.value.imported


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "raise NotImplementedError('\\n\\nneeds a GPU\\nand more')",
            "does not work here: NotImplementedError: needs a GPU",
        ),
        ("import sys; sys.exit('wants another torch')", "does not work here: SystemExit: wants another torch"),
        ("class FastModel: pass", "does not work here: AttributeError: module 'unsloth' has no attribute 'Fast"),
    ],
)
def test_broken_it_is_said_why_in_one_line(stand_in: Write, text: str, said: str) -> None:
    stand_in(text)
    with pytest.raises(UnslothError) as caught:
        unsloth.bring_in("auto")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.imported


@pytest.mark.parametrize("device", ["cpu", "auto", "cuda"])
def test_it_is_quiet_counts_nobody_and_writes_into_the_users_cache(
    stand_in: Write, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UNSLOTH_COMPILE_LOCATION", "/my/own")
    stand_in("import os\nprint('==((====))==')\nclass FastLanguageModel: seen = dict(os.environ)")
    unsloth.bring_in(device)
    seen = sys.modules["unsloth"].FastLanguageModel.seen
    assert capsys.readouterr().out == ""
    assert seen["UNSLOTH_DISABLE_STATISTICS"] == "1"
    assert seen["UNSLOTH_MEGA_CACHE_DIR"] == str(tmp_path / "cache/aapo-desk/unsloth/bundles")
    assert seen["UNSLOTH_COMPILE_LOCATION"] == "/my/own"
    assert seen.get("UNSLOTH_FORCE_CPU") == ("1" if device == "cpu" else None)
