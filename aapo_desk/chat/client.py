"""The model process as the CLI and the screen see it. Imports none of the code that runs inside the process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

from aapo_desk.chat.request import Side
from aapo_desk.launch.child import environment, python
from aapo_desk.store import RunDirectory

Said = dict[str, Any]
"""A message to or from the process; see the package's docstring."""
Hear = Callable[[Said], None]


class ChatProcess:
    """A model process, started immediately. Its messages are passed in order to ``hear``, called in another thread.

    If the process ends without a ``failed`` message, ``hear`` gets one that says what is known about its end.
    """

    def __init__(self, run: RunDirectory, step: str | None, sides: Sequence[Side], hear: Hear) -> None:
        self._hear = hear
        self._over = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in end())
        self._process = subprocess.Popen(
            python("aapo_desk.chat"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment(),
            process_group=0,  # Ctrl-C must reach only the terminal's process; ``end`` kills the group
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.send({"run": str(run.path.absolute()), "step": step, "sides": list(sides)})

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Said) -> None:
        """Send a message to the process. If it has ended, nothing happens: ``hear`` gets a ``failed`` message."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """Kill the process and its children; ``hear`` gets no more messages."""
        self._over = True
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self._errors.close()

    def _listen(self) -> None:
        assert self._process.stdout
        last = ""
        for line in self._process.stdout:
            said: Said = json.loads(line)
            last = said["kind"]
            if not self._over:
                self._hear(said)
        if not self._over and last != "failed":
            self._hear({"kind": "failed", "error": self._how_it_ended()})

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "the model process was killed, possibly by the system because memory ran out"
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 2000))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the model process {how}" + (f": {lines[-1]}" if lines else "")
