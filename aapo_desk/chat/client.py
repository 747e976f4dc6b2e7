"""The model process as the CLI and the screen see it. Loads nothing of what runs in there."""

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
"""A message of the process; see the package."""
Hear = Callable[[Said], None]


class ChatProcess:
    """A model process of its own, started at once. What it says goes to ``hear``, in another thread, in order.

    Where it ends without a last word, ``hear`` is told ``failed`` with what is known of its end.
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
            process_group=0,  # Ctrl-C is for the terminal's own process; what this one starts is ended with it
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.send({"run": str(run.path.absolute()), "step": step, "sides": list(sides)})

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Said) -> None:
        """Tell it something. Where it has ended, ``hear`` was told so."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """Kill the process and what it started; nothing is heard of it any more."""
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
            return "the model process was killed, perhaps by the system for want of memory"
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 2000))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the model process {how}" + (f": {lines[-1]}" if lines else "")
