"""The process that scores: ``python -m aapo_desk.rewards.worker``, started and ended by the pool.

It speaks JSON lines on standard input and output. First the set-up comes,

    {"rewards": [{"name", "options", "custom": null | {"path", "function", "source"}}], "memory_limit_mb"}

answered by {"ready": true} or {"refused": [[reward, {"option", "message", "given", "nearest"}], ...]}. Then each line
is a completion, answered by one line a reward: {"value": number | null, "error": text | null, "read": text | null,
"retire": bool}. "read" is the answer that the reward found, where it tells. After "retire" the worker is spent (it ran
out of memory) and nothing more comes for that completion.

It ends when its input closes and when its parent dies.
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
    """A reward, and the user's file that it comes from."""

    scorer: Scorer
    path: str | None = None


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which ends its workers itself
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
        # Set-up errors of the interpreter itself went to the parent; from here on nobody reads what is printed.
        os.dup2(1, 2)
        _send(replies, {"ready": True})
        for line in requests:
            completion = Completion(**json.loads(line))
            for reply in _score(rewards, completion, setup["memory_limit_mb"]):
                _send(replies, reply)


def die_with_parent() -> None:
    """Linux only; elsewhere, and where the parent died before this line, the closed input ends the worker."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The protocol on descriptors of its own, which children do not inherit; 0 and 1 lead nowhere from now on."""
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
    """The rewards, or None after saying which were refused and why."""
    too_large = Refusal(None, f"loading it takes more than the {setup['memory_limit_mb']} MB that a worker may use")
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
        random.seed(completion.text.encode(errors="surrogatepass"))  # half a pair is no UTF-8
        value, error, full = _evaluate(reward, completion)
        read = one_line(value.read) if isinstance(value, Judged) and value.read is not None else None
        # Libraries swallow a MemoryError and go on with a wrong result: the high-water mark tells.
        if full or _memory_nearly_full(megabytes):
            yield {"value": None, "error": f"out of memory (the limit is {megabytes} MB)", "read": None, "retire": True}
            return
        yield {"value": value, "error": error, "read": read, "retire": False}


def _evaluate(reward: Loaded, completion: Completion) -> tuple[float | None, str | None, bool]:
    """The score, or why there is none, and whether memory ran out."""
    try:
        value = reward.scorer(completion)
        if value is None:
            return None, NO_SCORE, False
        if isinstance(value, numbers.Real):
            number = value if isinstance(value, Judged) else float(value)  # first: what is no plain float may lie
            if math.isfinite(number):
                return number, None, False
        return None, one_line(f"returned {value!r} ({type(value).__name__}), not a finite number or None"), False
    except MemoryError:
        return None, None, True
    except BaseException as error:  # noqa: BLE001 (a reward that calls sys.exit() makes one answer unscorable, no more)
        return None, f"raised {custom.describe(error, reward.path)}", False


def _memory_nearly_full(megabytes: int) -> bool:
    """True where the process has ever come close to its limit (Linux; elsewhere it is not known)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmPeak:")), 0)
    return peak >= (megabytes << 10) * _NEARLY_FULL


if __name__ == "__main__":
    main()
