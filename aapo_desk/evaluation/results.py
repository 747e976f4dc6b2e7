"""The files of an evaluation: a small head, one line per problem, and the summary of the lines.

    evaluations/gsm8k-greedy-1a2b3c4d/
        evaluation.json     the head: what was asked of which model, the progress, and at the end the accuracies
        results.jsonl       one problem per line: {"id", "source_id", "problem", "answer", "prompt_tokens",
                            "base": [{"completion", "read", "score", "tokens", "truncated", ...}], "tuned": [...]}

A batch's lines are written to disk before the head counts them. Lines beyond the head's count therefore belong to a
batch that was interrupted, and are written again. ``id`` is derived from a problem's content; two evaluations are
paired by it.

The accuracies count unscorable answers as wrong. The head of an older version, which left them out (see
``aapo_desk.store.unscorable``), is summarised again from its lines before a new evaluation compares or shows it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from aapo_desk.evaluation.accuracy import as_wrong, difference
from aapo_desk.evaluation.intervals import mean_of_means
from aapo_desk.store import StoreError, read_json, write_atomically
from aapo_desk.store.unscorable import UNSCORABLE_AS, WRONG, leaves_out

FORMAT = 1
HEAD, ROWS = "evaluation.json", "results.jsonl"

Side = Literal["base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")
Head = dict[str, Any]
Line = dict[str, Any]


class EvaluationError(StoreError):
    """The results of an evaluation cannot be used; the message says which, why and what to do."""


@dataclass
class Results:
    """An evaluation's folder, locked by this process. ``lines`` are the lines stored so far."""

    folder: Path
    head: Head
    lines: list[Line]
    _file: IO[bytes]

    def add(self, lines: Sequence[Line], seconds: float) -> None:
        """Append a batch's lines and sync them to disk."""
        self._file.write(
            b"".join(json.dumps(line, ensure_ascii=False).encode(errors="replace") + b"\n" for line in lines)
        )
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines += lines
        self.change(done=len(self.lines), seconds=self.head["seconds"] + seconds)

    def change(self, **changes: Any) -> None:
        """Write the head with these changes."""
        self.head = self.head | changes
        write_atomically(self.folder / HEAD, json.dumps(self.head, indent=2))

    def finish(self) -> None:
        self.change(finished=time.time(), summary=summarise(self.lines))

    def count_again(self) -> bool:
        """Replace the summary if it left unscorable answers out, and return whether it did."""
        if not measured_before(self.head["summary"]):
            return False
        self.change(summary=summarise(self.lines))
        return True


@contextmanager
def opened(folder: Path, head: Head) -> Iterator[Results]:
    """Open the results in ``folder`` to continue them if their ``key`` is the same, else start new ones with ``head``.

    Raises EvaluationError if another process is using them, or if lines are missing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # mkdir applies the mode to the last folder only
    folder.mkdir(exist_ok=True, mode=0o700)
    (folder / ROWS).touch(mode=0o600)
    with (folder / ROWS).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EvaluationError(f"another process is using {folder}; wait until it has finished") from None
        kept = read_head(folder)
        same = kept is not None and (kept["format"], kept["key"]) == (FORMAT, head["key"])
        results = Results(folder, kept if kept and same else head, [], file)
        if same:
            results.lines, end = _read(folder, results.head["done"])
            file.truncate(end)
        else:
            file.truncate(0)
            results.change(format=FORMAT, done=0, seconds=0.0, begun=time.time(), finished=None, summary=None)
        file.seek(0, os.SEEK_END)
        yield results


def read_head(folder: Path) -> Head | None:
    """Return the head in ``folder``; None if there is none that this version can read."""
    head = read_json(folder / HEAD)
    return head if head and head.get("format") == FORMAT else None


def read_lines(folder: Path) -> list[Line]:
    """Return the lines that the head counts. Raises EvaluationError if some are missing."""
    head = read_head(folder)
    return _read(folder, head["done"])[0] if head else []


def finished(evaluations: Path) -> list[tuple[Path, Head]]:
    """Return the completed evaluations in a folder, oldest first."""
    found = [(head.parent, read_head(head.parent)) for head in evaluations.glob(f"*/{HEAD}")]
    return sorted(
        ((folder, head) for folder, head in found if head and head["finished"]), key=lambda item: item[1]["finished"]
    )


def _read(folder: Path, count: int) -> tuple[list[Line], int]:
    """Return the first ``count`` lines and the byte offset after them."""
    lines: list[Line] = []
    end = 0
    try:
        with (folder / ROWS).open("rb") as file:
            for _ in range(count):
                lines.append(json.loads(file.readline()))
            end = file.tell()
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{folder / ROWS} does not have the {count} problems that {HEAD} counts ({error}); "
            "remove the folder to start again"
        ) from error
    return lines, end


def summarise(lines: Sequence[Line]) -> dict[str, Any]:
    """Return the accuracy of each side with its interval, and the paired difference if there are two sides.

    Unscorable answers count as wrong; ``unscorable`` is their number.
    """
    sides = [side for side in SIDES if lines and side in lines[0]]
    summary: dict[str, Any] = {side: _side([line[side] for line in lines]) for side in sides}
    if len(sides) == len(SIDES):
        before, after = ([score(line, side) for line in lines] for side in SIDES)
        summary["difference"] = difference(before, after).as_json() | {
            "problems": len(lines),
            "better": sum(now > was for was, now in zip(before, after, strict=True)),
            "worse": sum(now < was for was, now in zip(before, after, strict=True)),
        }
    return summary


def measured_before(summary: Mapping[str, Any]) -> bool:
    """Return whether an older version made this summary and left unscorable answers out of it."""
    return any(leaves_out(summary[side]) for side in SIDES if side in summary)


def score(line: Mapping[str, Any], side: Side) -> float:
    """Return a problem's mean score over its samples; a sample that could not be scored counts as wrong."""
    scores = _scores(line[side])
    return sum(scores) / len(scores)


def _scores(answers: Sequence[Mapping[str, Any]]) -> list[float]:
    return as_wrong([answer["score"] for answer in answers])


def _side(problems: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    answers = [answer for problem in problems for answer in problem]
    accuracy = mean_of_means([_scores(problem) for problem in problems])
    return {
        "accuracy": accuracy.mean,
        "low": accuracy.low,
        "high": accuracy.high,
        "answers": len(answers),
        "unscorable": sum(answer["score"] is None for answer in answers),
        UNSCORABLE_AS: WRONG,
        "readable": sum(answer["readable"] for answer in answers) / len(answers),
        "truncated": sum(answer["truncated"] for answer in answers) / len(answers),
        "tokens": sum(answer["tokens"] for answer in answers) / len(answers),
    }
