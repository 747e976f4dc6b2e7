"""The facts that the doctor collects about a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aapo_desk.doctor import hub, looking
from aapo_desk.doctor.asking import Answer


@pytest.mark.parametrize(
    ("variables", "colours"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, 1 << 24),
        ({"TERM": "xterm-direct"}, 1 << 24),
        ({"TERM": "tmux-256color"}, 256),
        ({"TERM": "xterm-kitty"}, 256),
        ({"TERM": "linux"}, 16),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, 0),
        ({}, 0),
    ],
)
def test_the_colours_are_those_the_terminal_says_it_has(variables: dict[str, str], colours: int) -> None:
    assert looking.colours(variables) == colours


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("6.8.0-60-generic", 0),
        ("4.4.0-19041-Microsoft", 1),
        ("5.15.167.4-microsoft-standard-WSL2", 2),
    ],
)
def test_the_kernel_tells_windows_subsystem(release: str, version: int) -> None:
    assert looking.wsl(release) == version


def test_a_folder_that_is_still_to_come_is_judged_by_where_it_will_lie(tmp_path: Path) -> None:
    found = looking.place(tmp_path / "a" / "b")
    assert found.path == str(tmp_path / "a" / "b")
    assert found.writable
    assert found.free
    assert not (tmp_path / "a").exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert not looking.place(tmp_path / "file").writable
    assert not looking.place(tmp_path / "file" / "below").writable


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert not looking.place(tmp_path / "new").writable


def test_a_version_is_held_against_what_this_package_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_wanted", lambda name: ">=5.17")
    for version, fits in (("5.24.0", True), ("5.18.0.dev0", True), ("4.51.3", False)):
        monkeypatch.setattr(looking, "installed", lambda name, version=version: version)
        assert looking.library("transformers", Answer(found={})).fits is fits
    assert looking.library("transformers", Answer(error="broken")).error == "broken"
    monkeypatch.setattr(looking, "installed", lambda name: None)
    missing = looking.library("transformers", Answer(error="ModuleNotFoundError"))
    assert (missing.version, missing.error) == (None, None)


@pytest.fixture
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    for name in (*hub.TOKENS, *hub.SWITCHES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    return tmp_path / "token"


def test_a_token_is_found_where_the_hubs_library_looks_and_never_told(
    no_token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.without_asking(offline=True).token is None
    no_token.write_text(" \n")
    assert hub.without_asking(offline=True).token is None
    no_token.write_text("hf_secret\n")
    assert hub.without_asking(offline=True).token == str(no_token)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    found = hub.without_asking(offline=True)
    assert found.token == "HF_TOKEN"
    assert "hf_" not in repr(found).replace(str(no_token), "")


@pytest.mark.usefixtures("no_token")
@pytest.mark.parametrize(("value", "offline"), [("1", "HF_HUB_OFFLINE"), ("true", "HF_HUB_OFFLINE"), ("0", None)])
def test_the_hubs_own_switch_forbids_the_question(
    monkeypatch: pytest.MonkeyPatch, value: str, offline: str | None
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert hub.without_asking(offline=False).offline == offline
    assert hub.without_asking(offline=True).offline == "--offline"
