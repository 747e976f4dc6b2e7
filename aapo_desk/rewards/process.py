"""The pool's handle on one worker process: start it, send, receive, end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aapo_desk
from aapo_desk.rewards import custom
from aapo_desk.rewards.base import one_line

if TYPE_CHECKING:
    from aapo_desk.config import RewardConfig

START_LIMIT = 60.0
"""Time limit for a worker to load its rewards, in seconds."""

MOST_LINE = 1 << 20
"""Maximum size of a message, in bytes. A longer one comes from a reward that writes to the protocol's pipe."""

# The worker imports the same package as this process. The package's folder is removed from sys.path after the import,
# and -P keeps the current folder out, so that neither shadows other modules.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import aapo_desk; del sys.path[0]; "
    "from aapo_desk.rewards.worker import main; main()"
)
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # a resumed run must get the same scores
}


class WorkerGoneError(Exception):
    """Raised if the worker has ended. ``str()`` says how, as the end of a sentence that begins with "the worker"."""


class WorkerProcess:
    """A running worker. ``aapo_desk.rewards.worker`` documents the protocol."""

    def __init__(self, setup: Mapping[str, Any]) -> None:
        self._incoming = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in end())
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(Path(aapo_desk.__file__).parents[1])],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                env=os.environ | _ENVIRONMENT,
                process_group=0,  # so that processes started by a reward end with the worker
            )
        with contextlib.suppress(WorkerGoneError):  # receive() reports it
            self.send(setup, START_LIMIT)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._channel.fileno()

    def send(self, message: Mapping[str, Any], limit: float) -> None:
        """Send a message. Raises WorkerGoneError if the worker has ended or reads nothing for ``limit`` seconds."""
        self._channel.settimeout(limit)
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except TimeoutError:
            raise WorkerGoneError("does not read its input") from None
        except OSError:
            raise WorkerGoneError(self._how_it_ended()) from None

    def receive(self, limit: float) -> list[dict[str, Any]]:
        """Return the messages received, after waiting up to ``limit`` seconds for the first data.

        Raises WorkerGoneError if the worker has ended or broke the protocol.
        """
        self._channel.settimeout(limit)
        try:
            data = self._channel.recv(1 << 16)
        except TimeoutError:
            return []
        except OSError:
            data = b""
        if not data:
            raise WorkerGoneError(self._how_it_ended())
        *lines, self._incoming = (self._incoming + data).split(b"\n")
        if len(self._incoming) > MOST_LINE:
            raise WorkerGoneError("broke the protocol")
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            raise WorkerGoneError("broke the protocol") from None
        if not all(isinstance(message, dict) for message in messages):
            raise WorkerGoneError("broke the protocol")
        return messages

    def end(self) -> None:
        """Kill the process and its children, and wait until it has ended."""
        self._kill()
        self._channel.close()
        self._errors.close()

    def _kill(self) -> int:
        """Kill the process group and return the exit status, which is the process's own if it had ended by itself."""
        if self._process.returncode is None:
            # The process was not waited for yet, so its pid cannot have been reused, even if it has ended.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def _how_it_ended(self) -> str:
        status = self._kill()
        if status == -signal.SIGKILL:
            return "was killed, perhaps by the system because memory ran out"
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        said = self._last_words()
        return f"{how}: {said}" if said else how

    def _last_words(self) -> str:
        """Return the last line on standard error, which says why a worker did not start."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 2000))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return one_line(lines[-1]) if lines else ""


def setup_message(rewards: Sequence[RewardConfig], memory_limit_mb: int) -> dict[str, Any]:
    """Return the message that a worker needs to load the rewards. Raises RefusedError if a file cannot be read."""
    described = []
    for reward in rewards:
        found = custom.find(reward.name) if custom.is_custom(reward.name) else None
        options = reward.model_dump(mode="json")["options"]
        described.append({"name": reward.name, "options": options, "custom": vars(found) if found else None})
    return {"rewards": described, "memory_limit_mb": memory_limit_mb}
