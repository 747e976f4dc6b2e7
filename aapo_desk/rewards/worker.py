"""The process that scores completions: ``python -m aapo_desk.rewards.worker``, started and ended by the pool.

It reads and writes JSON lines on standard input and output. The first line is the set-up,

    {"rewards": [{"name", "options", "custom": null | {"path", "function", "source"}}], "memory_limit_mb"}

answered by {"ready": true} or {"refused": [[reward, {"option", "message", "given", "nearest"}], ...]}. Each later line
is a completion, answered by one line per reward: {"value": number | null, "error": text | null, "read": text | null,
"retire": bool}. "read" is the answer that the reward found, if it reports one. After "retire" the worker cannot be used
any more (it ran out of memory) and sends nothing more for that completion.

The worker ends when its input closes or its parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import numbers
import os
import random
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from aapo_desk.rewards import custom
from aapo_desk.rewards.base import NO_SCORE, Completion, Judged, Refusal, RefusedError, Scorer, one_line
from aapo_desk.rewards.builtin import built_in

_PR_SET_PDEATHSIG = 1
_NEARLY_FULL = 0.9


@dataclass(frozen=True)
class Loaded:
    """A loaded reward, and its file if it is a custom reward."""

    scorer: Scorer
    path: str | None = None


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which ends its workers
    die_with_parent()
    requests, replies = _take_over_pipes()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        setup = json.loads(requests.readline() or "null")
        if setup is None:
            return
        _limit_memory(setup["memory_limit_mb"])
        rewards = _set_up(setup, replies)
        if rewards is None:
            return
        # Until here, standard error went to the parent, to report errors of the set-up. From here on nobody reads it.
        os.dup2(1, 2)
        _send(replies, {"ready": True})
        for line in requests:
            completion = Completion(**json.loads(line))
            for reply in _score(rewards, completion, setup["memory_limit_mb"]):
                _send(replies, reply)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux only).

    On other systems, or if the parent died before this call, the closed input ends the worker.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the protocol to new descriptors, which children do not inherit, and redirect 0 and 1 to /dev/null."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return requests, replies


def _limit_memory(megabytes: int) -> None:
    allowed = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = megabytes << 20 if allowed == resource.RLIM_INFINITY else min(megabytes << 20, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _set_up(setup: dict[str, Any], replies: BinaryIO) -> list[Loaded] | None:
    """Load the rewards. If any are refused, send the reasons and return None."""
    too_large = Refusal(None, f"loading it takes more memory than a worker may use ({setup['memory_limit_mb']} MB)")
    loaded, refused = [], []
    for index, reward in enumerate(setup["rewards"]):
        try:
            loaded.append(_load(reward))
        except RefusedError as error:
            refused += [[index, asdict(refusal)] for refusal in error.refusals]
        except MemoryError:
            refused.append([index, asdict(too_large)])
        else:
            if _memory_nearly_full(setup["memory_limit_mb"]):
                refused.append([index, asdict(too_large)])
    if refused:
        _send(replies, {"refused": refused})
        return None
    return loaded


def _load(reward: dict[str, Any]) -> Loaded:
    if reward["custom"]:
        source = custom.Custom(**reward["custom"])
        return Loaded(custom.load(source, reward["options"]), source.path)
    return Loaded(built_in(reward["name"]).build(reward["options"]))


def _send(replies: BinaryIO, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message).encode() + b"\n")
    replies.flush()


def _score(rewards: list[Loaded], completion: Completion, megabytes: int) -> Iterator[dict[str, Any]]:
    for reward in rewards:
        random.seed(completion.text.encode(errors="surrogatepass"))  # a lone surrogate cannot be encoded otherwise
        value, error, full = _evaluate(reward, completion)
        read = one_line(value.read) if isinstance(value, Judged) and value.read is not None else None
        # Some libraries swallow a MemoryError and continue with a wrong result. The peak memory reveals that.
        if full or _memory_nearly_full(megabytes):
            yield {"value": None, "error": f"out of memory (the limit is {megabytes} MB)", "read": None, "retire": True}
            return
        yield {"value": value, "error": error, "read": read, "retire": False}


def _evaluate(reward: Loaded, completion: Completion) -> tuple[float | None, str | None, bool]:
    """Return the score or None, the reason if there is none, and whether memory ran out."""
    try:
        value = reward.scorer(completion)
        if value is None:
            return None, NO_SCORE, False
        if isinstance(value, numbers.Real):
            number = (
                value if isinstance(value, Judged) else float(value)
            )  # convert first: a number class of the user's may misbehave
            if math.isfinite(number):
                return number, None, False
        return None, one_line(f"returned {value!r} ({type(value).__name__}), not a finite number or None"), False
    except MemoryError:
        return None, None, True
    except BaseException as error:  # noqa: BLE001 (even sys.exit() in a reward makes only this completion unscorable)
        return None, f"raised {custom.describe(error, reward.path)}", False


def _memory_nearly_full(megabytes: int) -> bool:
    """Return whether the process ever came close to its memory limit (Linux; on other systems always False)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmPeak:")), 0)
    return peak >= (megabytes << 10) * _NEARLY_FULL


if __name__ == "__main__":
    main()
