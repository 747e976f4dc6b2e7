"""Rows and ratios computed from the measurements. All functions are pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aapo_desk.bench.jobs import Measured
from aapo_desk.bench.peers import Peer

Results = Mapping[str, Sequence[Measured]]
Row = dict[str, Any]

NOTE = (
    "every completion has the maximum length and nearly every row has an advantage; tokens per second count the "
    "policy's completions, in the rows of a rollout all completions; memory is the peak of the training process, "
    "including loading"
)


def report(peers: Sequence[Peer], results: Results) -> dict[str, Any]:
    """Return the document of the benchmark: device, versions, shape, note, rows, ratios."""
    kept = [peer for peer in peers if peer.key in results]
    rows = [row(peer, results[peer.key]) for peer in kept] + path_rows(kept, results)
    about = next(iter(results.values()))[0].about
    return {
        **{name: about[name] for name in ("device", "versions", "shape")},
        "note": NOTE,
        "rows": rows,
        "ratios": ratios(rows),
    }


def row(peer: Peer, measured: Sequence[Measured]) -> Row:
    """Return the row of one peer: medians over all steps of all rounds."""
    seconds = _values(measured, "seconds")
    tokens = peer.job.tokens * (2 if peer.job.worker == "generate" else 1)
    found = _row(peer.key, peer.what, seconds, tokens, max(one.peak_mb for one in measured))
    found["steps"] = len(seconds)
    if "choices" in measured[0].about:
        found["choices"] = measured[0].about["choices"]  # 0 for a fast path that failed its verification
    for name in measured[0].steps[0]:
        if name not in ("seconds", "completion_tokens"):
            found[name] = statistics.median(_values(measured, name))
    return found


def path_rows(peers: Sequence[Peer], results: Results) -> list[Row]:
    """Return rows for the phases of a step, with our fast paths and with plain ones, from the measured steps."""
    by_key = {peer.key: peer for peer in peers}
    wanted = (
        ("rollout_grouped", "rollout of policy and reference, grouped", "aapo_fresh", "rollout", 2),
        ("rollout_adapter", "the same, no dequantized weights", "aapo_fresh_adapter", "rollout", 2),
        ("rollout_uncaptured", "the same, no CUDA graphs", "uncaptured", "rollout", 2),
        ("update_shared", "update, prompts shared if cheaper", "grpo", "update", 1),
        ("update_adapter", "the same, no dequantized weights", "aapo_fresh_adapter", "update", 1),
        ("update_dense", "update, prompts not shared", "dense", "update", 1),
    )
    return [
        _row(
            key,
            what,
            _values(results[source], f"seconds_{phase}"),
            sides * by_key[source].job.tokens,
            max(measured.peaks[phase] for measured in results[source]),
        )
        for key, what, source, phase, sides in wanted
        if source in by_key
    ]


def _row(key: str, what: str, seconds: Sequence[float], tokens: int, peak_mb: float) -> Row:
    median = statistics.median(seconds)
    return {
        "key": key,
        "what": what,
        "seconds": median,
        "seconds_least": min(seconds),
        "seconds_most": max(seconds),
        "tokens_per_second": tokens / median,
        "peak_mb": peak_mb,
    }


def _values(measured: Iterable[Measured], name: str) -> list[float]:
    return [step[name] for one in measured for step in one.steps]


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return the ratios of the rows that were measured. Unless noted, a ratio above 1 means that ours is better.

    ``aapo_fresh``, ``aapo_bank`` and ``grpo`` are the time of TRL's best setting, adapted to the device, over our time.
    ``memory`` is the least peak memory of these TRL settings over our least. ``rollout_to_plain`` and
    ``update_to_plain`` are the plain path's time over ours. ``update_to_matmul`` and ``update_to_shapes`` are the
    update's time over the time of its floating-point operations at the rate of a large square matmul, or at the rate of
    matmuls of the update's own shapes; 1 is the lower bound.
    """
    by_key = {row["key"]: row for row in rows}
    found: dict[str, float] = {}
    fair = [row for row in rows if row["key"].startswith("trl_") and row["key"] != "trl_as_it_comes"]
    if fair:
        best, least = min(row["seconds"] for row in fair), min(row["peak_mb"] for row in fair)
        for key in ("aapo_fresh", "aapo_bank", "grpo"):
            if key in by_key:
                found[key] = best / by_key[key]["seconds"]
        found["memory"] = least / by_key["aapo_least"]["peak_mb"]
    for name, plain, fast in (
        ("rollout_to_plain", "generate", "rollout_grouped"),
        ("update_to_plain", "update_dense", "update_shared"),
    ):
        if plain in by_key and fast in by_key:
            found[name] = by_key[plain]["seconds"] / by_key[fast]["seconds"]
    if (update := by_key.get("arithmetic")) is not None:
        found |= {name: update[name] for name in ("update_to_matmul", "update_to_shapes")}
    return found
