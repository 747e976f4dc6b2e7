"""The real program in a pseudo-terminal: sends keys, reads its output, and measures the CPU time and memory it uses."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from aapo_desk.bench.jobs import BenchError
from aapo_desk.launch.child import environment

SIZE = (140, 40)
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
SECONDS_TO_QUIT = 10.0
SEQUENCE = re.compile(rb"\x1b(?:\[[0-9;?:<=>]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")


class Terminal:
    """A command in a terminal of 140 x 40 characters. It is a context manager whose exit ends the command."""

    def __init__(self, command: Sequence[str], home: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        colours = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        variables = environment() | colours | {"AAPO_DESK_HOME": str(home)}
        variables.pop("NO_COLOR", None)
        self.started = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                command, stdin=slave, stdout=slave, stderr=slave, env=variables, start_new_session=True
            )
        finally:
            os.close(slave)
        self._output = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.quit()
        finally:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            os.close(self._master)

    @property
    def pid(self) -> int:
        return self._process.pid

    def quit(self) -> None:
        """Press q and wait up to ``SECONDS_TO_QUIT`` for the program to end."""
        self.press("q")
        deadline = time.perf_counter() + SECONDS_TO_QUIT
        while self._process.poll() is None and time.perf_counter() < deadline:
            self._take(0.05)

    def press(self, key: str) -> float:
        """Discard the output so far and send a key. Returns the time by ``perf_counter``."""
        self._output = b""
        os.write(self._master, key.encode())
        return time.perf_counter()

    def pump(self, seconds: float) -> None:
        """Read the program's output for this many seconds."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._take(left)

    def wait_for(self, *patterns: str, seconds: float = 60.0) -> float:
        """Wait until each pattern matches the output since the last key. Returns the time by ``perf_counter``.

        Raises BenchError if a pattern does not appear within ``seconds`` or the program ends.
        """
        deadline = time.perf_counter() + seconds
        while missing := [pattern for pattern in patterns if not re.search(pattern, self.text)]:
            ended = self._process.poll() is not None
            late = time.perf_counter() > deadline
            if self._take(0.05) and not late:
                continue
            if ended or late:
                why = "the UI has ended" if ended else f"it did not appear within {seconds:.0f} s"
                raise BenchError(f"waiting for {missing[0]} on the screen: {why}: {' '.join(self.text.split())[-300:]}")
        return time.perf_counter()

    @property
    def text(self) -> str:
        """Return the output since the last key without the escape sequences that move the cursor or set colours."""
        return SEQUENCE.sub(b" ", self._output).decode(errors="replace")

    def forget(self) -> None:
        """Discard the output so far."""
        self._output = b""

    def _take(self, seconds: float) -> bool:
        """Read the next output, waiting up to ``seconds`` for it. Returns whether there was any."""
        ready, _, _ = select.select([self._master], [], [], seconds)
        if ready:
            with contextlib.suppress(OSError):  # EIO: the program has closed its side
                self._output += os.read(self._master, 1 << 16)
                return True
            time.sleep(min(seconds, 0.01))
        return False

    def cpu_seconds(self) -> float:
        """Return the CPU time in seconds that all threads of the program have used so far."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND

    def peak_mb(self) -> float:
        """Return the program's peak memory in MiB."""
        found = re.search(r"^VmHWM:\s+(\d+) kB$", self._proc("status"), flags=re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0

    def _proc(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text(encoding="utf-8")
        except OSError as error:
            raise BenchError(f"cannot read the CPU time and memory of the UI's process: {error}") from error
