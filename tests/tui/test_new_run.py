"""The form: what stands beside a field, what is beside the form, and what comes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from aapo_desk import hardware, launch, presets
from aapo_desk.config import RunConfig, resolve
from aapo_desk.hardware import Machine
from aapo_desk.launch import LaunchError, Preflight
from aapo_desk.tui import look
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.listing import PresetRow
from aapo_desk.tui.screens import new_run
from aapo_desk.tui.screens.home import HomeScreen
from aapo_desk.tui.screens.new_run import NewRunScreen
from aapo_desk.tui.screens.preparing import PreparingScreen
from aapo_desk.tui.screens.saving import SaveDialog
from aapo_desk.tui.widgets.settingsform import SettingsForm
from tests.shapes import RTX_4060, SMOLLM2_135M
from tests.tui import fixed_run
from tests.tui.driving import NARROW, WIDE, Desk, press, settle, shown

PROMPTS = [f"<|im_start|>user\n{sum_}=<|im_end|>\n<|im_start|>assistant\n" for sum_ in ("3 + 9 ", "12 + 7 ", "1 + 15 ")]
FOUND = Preflight(125, 100, 0, 0, 26, "./smol", None, None, PROMPTS, [24, 26, 25], ["3", "7", "15"], [])
Compare = Callable[..., bool]
Preview = Callable[[RunConfig], Preflight]


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a card, a model of which there is only the configuration, and no waiting after an edit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smol").mkdir()
    (tmp_path / "smol" / "config.json").write_text(json.dumps(SMOLLM2_135M))
    monkeypatch.setattr(look, "machine", lambda: Machine(8, 3.0, 32000, 21000, (RTX_4060,)))
    monkeypatch.setattr(new_run, "QUIET_SECONDS", 0.001)
    answer_with(monkeypatch, lambda _: FOUND)


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Preview) -> None:
    """The answer of the process that knows the tokenizer."""

    def preflight(config: RunConfig, say: Callable[[str], None], cancelled: threading.Event) -> Preflight:
        say(f"reading {config.task.source}")
        return answer(config)

    monkeypatch.setattr(look, "preflight", preflight)


@pytest.fixture
def config() -> RunConfig:
    return fixed_run.config(overrides={"model.id": "./smol"})


async def opened(pilot: Pilot[Any], config: RunConfig) -> NewRunScreen:
    app = pilot.app
    assert isinstance(app, DeskApp)
    await settle(pilot)
    app.edit("demo", config)
    await settle(pilot)
    return form_of(app)


def form_of(app: DeskApp) -> NewRunScreen:
    assert isinstance(app.screen, NewRunScreen)
    return app.screen


async def after_quiet(pilot: Pilot[Any]) -> None:
    """Until the closer look that an edit brings has been drawn."""
    await pilot.pause(0.01)
    await settle(pilot)


async def fill(pilot: Pilot[Any], path: str, text: str) -> None:
    """Go to a field, replace what stands there; the last character is typed."""
    screen = pilot.app.screen
    screen.query_one(SettingsForm).go_to(path)
    await pilot.pause()
    field = screen.focused
    assert isinstance(field, Input | TextArea)
    if isinstance(field, Input):
        field.value = text[:-1]
        field.action_end()
    else:
        field.text = text[:-1]
        field.move_cursor(field.document.end)
    await press(pilot, text[-1])
    await after_quiet(pilot)


async def test_e_on_a_preset_and_n_anywhere_open_the_form(
    desk: Desk, preset_rows: list[PresetRow], config: RunConfig
) -> None:
    preset_rows[0] = PresetRow("demo", "Demo", [], config)
    fixed_run.write_run("done", done=1, state="stopped")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await settle(pilot)
        await press(pilot, "n")
        assert "New run  from demo" in shown(app)
        await press(pilot, "escape")
        assert isinstance(app.screen, HomeScreen)
        await press(pilot, "tab", "e")
        assert isinstance(app.screen, NewRunScreen)
        await press(pilot, "escape", "down", "e")
        assert isinstance(app.screen, HomeScreen), "a preset that cannot be read has no form"


async def test_an_error_stands_beside_its_field_as_one_types_and_goes_when_it_is_mended(
    desk: Desk, config: RunConfig
) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        await fill(pilot, "rollout.group_size", "1")
        text = shown(app)
        assert "✗ group_size" in text
        assert "✗ must be greater than or equal to 2" in text
        assert "1 change  ✗ 1 field with errors" in text
        assert "unknown while a field has errors" in text
        await press(pilot, "6")
        await after_quiet(pilot)
        text = shown(app)
        assert "● group_size 16 preset: 8" in " ".join(text.split())
        assert "with errors" not in text
        assert "✓ fits" in text


async def test_values_that_cannot_work_together_are_marked_at_each_field(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, config)
        await fill(pilot, "optimizer.warmup_steps", "41")
        text = shown(app)
        assert "✗ warmup_steps" in text
        assert "✗ steps " in text
        assert "✗ 2 fields with errors" in text


async def test_rewards_are_edited_as_yaml_with_the_error_beneath(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, config)
        await fill(pilot, "rewards", "- {name: math, wieght: 2}")
        assert "✗ 0.wieght: there is no such setting" in shown(app)
        await fill(pilot, "rewards", "[{")
        assert "✗ is not valid YAML" in shown(app)
        await fill(pilot, "rewards", '[{"name": "math", "weight": 2}]')
        assert "with errors" not in shown(app)


async def test_what_differs_is_listed_and_reset_puts_it_back(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, config)
        assert "None yet." in shown(app)
        await fill(pilot, "run.steps", "60")
        lines = [line.split() for line in shown(app).split("\n")]
        assert any(line[-1:] == ["run.steps"] for line in lines)
        assert any(line[-3:] == ["40", "→", "60"] for line in lines)
        await press(pilot, "ctrl+t")
        await after_quiet(pilot)
        assert "None yet." in shown(app)
        assert "from demo  1 change" not in shown(app)


async def test_choices_are_made_by_key_and_by_mouse(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        screen = await opened(pilot, config)
        await press(pilot, "slash", *"quanti", "enter", "l")
        assert "○ nf4  ● none" in shown(app)
        await press(pilot, "h")
        assert "● nf4  ○ none" in shown(app)
        await press(pilot, "enter", "right")
        assert "○ nf4  ● none" in shown(app)
        choice = screen.focused
        assert choice is not None
        await pilot.click(choice, offset=(2, 0))
        await settle(pilot)
        assert "● nf4  ○ none" in shown(app)


async def test_keys_move_from_field_to_field_and_letters_move_only_outside_of_them(
    desk: Desk, config: RunConfig
) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        screen = await opened(pilot, config)
        form = screen.query_one(SettingsForm)
        await press(pilot, "j", "j", "k", "down")
        assert (form.current.path, form.has_focus) == ("model.backend", True)
        await press(pilot, "k", "enter", "j", "k")
        assert "jk" in shown(app)
        assert form.current.path == "model.revision"
        await press(pilot, "down")
        assert form.current.path == "model.backend"
        await press(pilot, "tab", "escape", "G")
        assert (form.current.path, form.has_focus) == ("evaluation.max_new_tokens", True)
        assert "max_new_tokens" in shown(app)


async def test_search_shows_only_the_fields_whose_path_or_help_has_the_words(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        await press(pilot, "slash", *"rank adapter")
        text = shown(app)
        assert "Rank of the LoRA adapter" in text
        assert "alpha" not in text
        await press(pilot, *"xyz")
        assert "No field has these words" in shown(app)
        await press(pilot, "escape")
        assert "quantization" in shown(app)


async def test_the_gauge_follows_the_edits(desk: Desk, config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        assert "of 7.4 GB free · peak in" in shown(app)
        await fill(pilot, "rollout.max_new_tokens", "9000")
        assert "≈ tight" in shown(app)
        assert "at least" in shown(app)
        await fill(pilot, "rollout.max_new_tokens", "900000")
        assert "✗ too large" in shown(app)
        monkeypatch.setattr(look, "machine", lambda: Machine(8, 3.0, 32000, 21000, ()))
        await fill(pilot, "model.id", "owner/nowhere")
        assert "? memory  the model's size is not known until it has been downloaded" in shown(app)


async def test_the_prompts_are_shown_as_the_model_reads_them_with_their_tokens(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        await press(pilot, "ctrl+n")
        text = shown(app)
        assert "125 problems to train on, 100 held out; longest prompt 26 tokens" in text
        assert "1  24 tokens" in text
        assert "<|im_start|>user" in text
        assert "3 + 9 =<|im_end|>" in text
        await press(pilot, "escape")
        assert "3 + 9" not in shown(app)


async def test_what_the_look_at_the_data_refuses_stands_beside_its_field(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, config)
        await fill(pilot, "rewards", "[{name: moth}]")
        assert "✗ 0.name: there is no such reward" in shown(app)
        await fill(pilot, "rewards", "[{name: math}]")
        assert "no such reward" not in shown(app)


async def test_why_there_are_no_prompts_is_told_as_text(
    desk: Desk, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: RunConfig) -> Preflight:
        raise LaunchError("smol has [b]no[/b] tokenizer \x1b[31m")

    answer_with(monkeypatch, fail)
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, config)
        assert "✗ smol has [b]no[/b] tokenizer ␛[31m" in shown(app)


async def test_nothing_is_fetched_before_it_is_asked_for(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, resolve(config.model_dump(), {"model.id": "owner/nowhere"}))
        assert "nowhere is not on this machine yet" in shown(app)
        assert "24 tokens" not in shown(app)
        await press(pilot, "ctrl+o")
        assert "24 tokens" in shown(app)


async def test_the_real_process_shows_the_prompts_of_a_real_tokenizer(
    desk: Desk, tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look, "preflight", launch.preflight)
    monkeypatch.setattr(look, "machine", hardware.machine)
    app = desk()
    async with app.run_test(size=WIDE) as pilot:
        await opened(pilot, resolve(tiny_config))
        text = shown(app)
        assert "1  " in text
        assert " tokens" in text
        assert "<|im_start|>user" in text
        assert "✓ fits" in text


async def test_saving_asks_for_a_name_says_what_it_hides_and_writes_the_preset(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        await fill(pilot, "run.steps", "60")
        await press(pilot, "ctrl+s")
        assert isinstance(app.screen, SaveDialog)
        assert "AAPO Desk has a built-in preset demo." in shown(app)
        await press(pilot, "slash")
        assert "✗ a name has at most 100 letters" in shown(app)
        await press(pilot, "enter", "backspace", *"mine", "enter")
        assert isinstance(app.screen, NewRunScreen)
        assert presets.load("mine") == resolve(config.model_dump(), {"run.steps": 60})
        assert "  run.steps: 40 -> 60" in presets.find("mine").notes
        await press(pilot, "ctrl+s", *"mine")
        assert "You already have a preset mine. It will be replaced." in shown(app)


async def test_a_folder_that_cannot_be_written_keeps_the_dialog_open(
    desk: Desk, config: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "settings").write_text("a file where the folder should be")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        await press(pilot, "ctrl+s", "enter")
        assert isinstance(app.screen, SaveDialog)
        assert "cannot write to" in shown(app)


async def test_start_goes_on_to_the_preflight_with_the_edited_values_and_a_refusal_leads_back(
    desk: Desk, config: RunConfig
) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        await fill(pilot, "task.options", "{}")
        await fill(pilot, "task.source", "file:missing.jsonl")
        await press(pilot, "ctrl+r")
        assert isinstance(app.screen, PreparingScreen)
        assert "task.source = 'file:missing.jsonl': there is no such file" in shown(app)
        await press(pilot, "x")
        assert isinstance(app.screen, NewRunScreen)
        assert "file:missing.jsonl" in shown(app)


async def test_from_the_monitor_of_what_was_started_one_comes_home(desk: Desk, config: RunConfig) -> None:
    run = fixed_run.write_run("started", done=1, state="stopped")
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        app.prepare(config, None)
        app.open_monitor(run, instead=True)
        await settle(pilot)
        app.go_home()
        await settle(pilot)
        assert isinstance(app.screen, HomeScreen)


async def test_with_a_mistake_start_and_save_go_to_the_field_instead(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        screen = await opened(pilot, config)
        await fill(pilot, "run.steps", "0")
        for key in ("ctrl+r", "ctrl+s"):
            await press(pilot, "escape", "g", key)
            assert app.screen is screen
            assert screen.query_one(SettingsForm).current.path == "run.steps"


async def test_leaving_asks_only_where_something_would_be_lost(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        await fill(pilot, "run.steps", "60")
        await press(pilot, "escape", "escape")
        assert "1 change to demo will be lost" in shown(app)
        await press(pilot, "n")
        assert isinstance(app.screen, NewRunScreen)
        await press(pilot, "escape", "y")
        assert isinstance(app.screen, HomeScreen)


@pytest.mark.parametrize("size", [NARROW, WIDE])
def test_form(snap_compare: Compare, desk: Desk, config: RunConfig, size: tuple[int, int]) -> None:
    async def run_before(pilot: Pilot[Any]) -> None:
        screen = await opened(pilot, config)
        await fill(pilot, "rollout.group_size", "16")
        await fill(pilot, "rollout.temperature", "0.7")
        screen.query_one(SettingsForm).go_to("rollout.top_k")
        await settle(pilot)

    assert snap_compare(desk(), terminal_size=size, run_before=run_before)


def test_form_with_errors(snap_compare: Compare, desk: Desk, config: RunConfig) -> None:
    async def run_before(pilot: Pilot[Any]) -> None:
        await opened(pilot, config)
        await fill(pilot, "algorithm.options", "{beta: 1}")
        await fill(pilot, "rollout.temperature", "0")
        await settle(pilot)

    assert snap_compare(desk(), terminal_size=NARROW, run_before=run_before)


def test_prompts_beside_what_differs(snap_compare: Compare, desk: Desk, config: RunConfig) -> None:
    async def run_before(pilot: Pilot[Any]) -> None:
        await opened(pilot, config)
        await fill(pilot, "rollout.group_size", "16")
        await press(pilot, "ctrl+n")

    assert snap_compare(desk(), terminal_size=NARROW, run_before=run_before)


async def test_quitting_asks_only_where_something_would_be_lost(desk: Desk, config: RunConfig) -> None:
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        await fill(pilot, "run.steps", "60")
        await press(pilot, "escape")  # out of the field
        for answer in ("n", "escape", "enter"):
            await press(pilot, "q")
            assert "Quit AAPO Desk?" in shown(app)
            assert "1 change to demo will be lost" in shown(app)
            await press(pilot, answer)
            assert isinstance(app.screen, NewRunScreen)
        await press(pilot, "q", "y")
    assert app.return_code == 0
    app = desk()
    async with app.run_test(size=NARROW) as pilot:
        await opened(pilot, config)
        await press(pilot, "q")
    assert app.return_code == 0
