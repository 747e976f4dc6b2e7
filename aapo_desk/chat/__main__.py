"""The model process. The package's docstring describes its messages."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from aapo_desk.chat.request import choose, is_live
from aapo_desk.config import ConfigError
from aapo_desk.preview import own_standard_output, silence_libraries
from aapo_desk.store import RunDirectory, StoreError


class Voice:
    """Writes messages to the original standard output."""

    def __init__(self, replies: IO[str]) -> None:
        self._replies = replies

    def __call__(self, kind: str, **more: Any) -> None:
        self._replies.write(json.dumps({"kind": kind, **more}) + "\n")
        self._replies.flush()


class Ears:
    """Reads standard input in a thread of its own, so that an answer can be cancelled, or the process ended, while the
    main thread is busy."""

    def __init__(self, requests: IO[bytes]) -> None:
        self.asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._requests = requests
        self._cancelled = -1
        threading.Thread(target=self._listen, daemon=True).start()

    def is_cancelled(self, number: int) -> bool:
        return number <= self._cancelled

    def _listen(self) -> None:
        for line in self._requests:
            request = json.loads(line)
            if "cancel" in request:
                self._cancelled = max(self._cancelled, int(request["cancel"]))
            else:
                self.asked.put(request)
        os._exit(0)  # the parent has ended, so nobody waits for the model or its answer


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say = Voice(own_standard_output())
    silence_libraries()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    ears = Ears(sys.stdin.buffer)
    try:
        return _serve(ears.asked.get(), ears, say)
    except ConfigError as error:
        say("failed", problems=[dataclasses.asdict(problem) for problem in error.problems])
        return 2
    except StoreError as error:
        say("failed", error=str(error))
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        say("failed", error=first if _is_told(error) else f"{type(error).__name__}: {first}")
        raise
    return 1


def _is_told(error: Exception) -> bool:
    """Return whether the error's message is written for the user."""
    from aapo_desk.checkpoint import CheckpointError
    from aapo_desk.models.sources import ModelError

    return isinstance(error, ModelError | CheckpointError)


def _serve(setup: Mapping[str, Any], ears: Ears, say: Voice) -> int:
    """Load, then answer until the input ends. Raises ConfigError, StoreError, ModelError and CheckpointError."""
    began = time.perf_counter()
    run = RunDirectory(Path(setup["run"]))
    live = is_live(run)
    source = choose(run, setup["step"], live)
    say("progress", text="loading torch and transformers")
    import torch

    from aapo_desk.chat.conversation import Conversation
    from aapo_desk.chat.loading import device_name, load, own_problems
    from aapo_desk.models.sources import ModelError

    def tell(text: str) -> None:
        say("progress", text=text)

    try:
        policy = load(source, tell)
    except torch.OutOfMemoryError as error:
        beside = " next to the training" if live else ""
        raise ModelError(
            f"the GPU does not have enough memory for the model{beside}; free some, or use the CPU by setting "
            "CUDA_VISIBLE_DEVICES="
        ) from error
    own = own_problems(run, source.config)
    conversation = Conversation(policy, source.config, setup["sides"], own.problems, say)
    say(
        "ready",
        run=run.id,
        name=run.name,
        step=source.step,
        chosen=source.chosen,
        model=source.config.model.id,
        device=device_name(policy),
        live=live,
        context=conversation.context,
        max_new_tokens=conversation.longest,
        problems=[{"problem": problem.problem, "answer": problem.answer} for problem in own.problems],
        note=own.note,
        seconds=round(time.perf_counter() - began, 3),
    )
    while True:
        request = ears.asked.get()
        if "reset" in request:
            conversation.reset()
        else:
            number = int(request["ask"])
            conversation.ask(request, lambda number=number: ears.is_cancelled(number))  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main())
