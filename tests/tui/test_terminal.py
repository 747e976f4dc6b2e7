"""The program in a terminal of its own: what it writes there, and a real run from start to end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aapo_desk import launch
from aapo_desk.launch.child import environment
from aapo_desk.store import RunReader, find_run, home
from tests.run_data import finished
from tests.stand_in import nothing_left_running

__all__ = ["finished", "nothing_left_running"]

pytestmark = pytest.mark.usefixtures("desk_home")

COMMANDS = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|P[^\x1b]*\x1b\\|[=>78])")
CLEARS = b"\x1b[2J"
CAN_HOLD_FRAMES = b"\x1b[?2026;2$y"  # the answer of a terminal that shows a frame when it is whole


class Terminal:
    """A pseudo-terminal with the program in it. It answers nothing but that it can hold frames back."""

    def __init__(self, file: int, process: subprocess.Popen[bytes]) -> None:
        self._file = file
        self._process = process
        self.drawn = b""

    def press(self, keys: bytes) -> None:
        os.write(self._file, keys)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self._process.send_signal(signal.SIGWINCH)  # as the kernel does to whom the terminal controls

    def until(self, *texts: str, seconds: float = 60) -> None:
        """Read until all of these have been drawn, in any order."""
        end, seen = time.monotonic() + seconds, b""
        while not all(text.encode() in COMMANDS.sub(b"", seen) for text in texts):
            assert time.monotonic() < end, f"{texts} were not drawn, but {COMMANDS.sub(b'', seen)[-2000:]!r}"
            seen += self._read()

    def end(self) -> int:
        """Read until the program has gone; its exit status."""
        with contextlib.suppress(OSError):  # how a terminal says that its program has gone
            while True:
                self._read()
        return self._process.wait(timeout=60)

    def close(self) -> None:
        """The terminal goes; the program does not lead its session and hears of it by no signal."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def wait(self) -> int:
        return self._process.wait(timeout=60)

    def _read(self) -> bytes:
        if not select.select([self._file], [], [], 1)[0]:
            return b""
        chunk = os.read(self._file, 65536)
        if b"\x1b[?2026$p" in chunk:
            self.press(CAN_HOLD_FRAMES)
        self.drawn += chunk
        return chunk


@contextmanager
def terminal(*arguments: str, **variables: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    # A parallel test run gives its workers a width, which would stand for the terminal's own.
    own = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "aapo_desk", *arguments],
        env=own | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"} | variables,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    screen = Terminal(ours, process)
    try:
        yield screen
    finally:
        process.kill()
        process.wait()
        screen.close()


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("options", "variables"),
    [(["--ascii"], {}), ([], {"AAPO_DESK_ASCII": "1"}), ([], {"LANG": "C", "LC_ALL": "", "LC_CTYPE": ""})],
)
def test_only_ascii_is_written_where_that_is_asked_for(options: list[str], variables: dict[str, str]) -> None:
    with terminal("watch", "sums", *options, **variables) as screen:
        screen.until("Quit")
        screen.press(b"q")
        assert screen.end() == 0
        text = COMMANDS.sub(b"", screen.drawn)
        assert b"> sums" in text or b"+ finished" in text
        assert text.isascii()


@pytest.mark.usefixtures("finished")
def test_a_read_only_screen_in_a_terminal_offers_nothing_that_acts() -> None:
    with terminal("watch", "sums", "--read-only") as screen:
        screen.until("Read-only: runs are shown", "Quit")
        screen.press(b"q")
        assert screen.end() == 0
        assert b"Pause" not in COMMANDS.sub(b"", screen.drawn)


def test_read_only_before_a_command_is_refused_and_not_overlooked() -> None:
    with terminal("--read-only", "watch", "last") as screen:
        assert screen.end() == 2
        assert b"--read-only must come after the command" in screen.drawn


@pytest.mark.usefixtures("finished")
def test_a_new_size_is_drawn_in_whole_frames_and_nothing_is_cleared() -> None:
    with terminal("watch", "sums") as screen:
        screen.until("Quit")
        before = len(screen.drawn)
        for width, height, word in (
            (140, 40, "palette"),
            (80, 24, "Quit"),
            (50, 15, "This terminal has"),
            (80, 24, "Quit"),
        ):
            screen.resize(width, height)
            screen.until(word)
        screen.press(b"q")
        assert screen.end() == 0
        after = screen.drawn[before:].partition(b"\x1b[?1049l")[0]
        assert CLEARS not in after
        after = after[after.find(b"\x1b[?2026h") :]  # what comes before ends a frame that was under way
        begins, ends = after.count(b"\x1b[?2026h"), after.count(b"\x1b[?2026l")
        assert begins >= 4
        assert begins == ends


@pytest.mark.slow
def test_a_real_run_is_started_watched_and_left_in_a_terminal(tmp_path: Path, tiny_config: dict[str, Any]) -> None:
    preset = tmp_path / "tiny.yaml"
    preset.write_text(json.dumps(tiny_config))
    with terminal("train", str(preset), "--name", "tiny") as screen:
        screen.until("Preparing")
        screen.until("reward")  # the monitor's chart
        screen.resize(140, 40)
        screen.until("palette")  # in the footer where there is room
        screen.until("finished")
        screen.press(b"\x1b[D")  # left: a step back
        screen.until("step 2 of 3")
        screen.press(b"?")
        screen.until("runs continue whatever is closed here")
        screen.press(b"?")
        screen.press(b"\x1bOQ")  # F2
        screen.until("Saved ")
        screen.press(b"q")
        assert screen.end() == 0
    run = find_run("tiny")
    assert launch.state(run) == "finished"
    assert (RunReader(run).last_metrics() or (0, {}))[0] == 3
    (picture,) = (home() / "screenshots").iterdir()
    assert "tiny" in picture.read_text(encoding="utf-8")


def test_the_screen_ends_with_its_terminal_even_without_a_signal() -> None:
    with terminal("--read-only") as screen:
        screen.until("No runs yet")
        screen.close()
        assert screen.wait() != 0
