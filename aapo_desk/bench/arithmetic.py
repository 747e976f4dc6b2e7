"""The speed of the update relative to the device's matmuls: to one large square matmul, and to those of the update."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from aapo_desk.bench.bed import about, context_of
from aapo_desk.bench.jobs import Job, Measured
from aapo_desk.bench.updates import made_up, update_once
from aapo_desk.models.loading import choose_device, choose_dtype
from aapo_desk.training.device.allocator import Peaks

aten = torch.ops.aten

SQUARE = {"cpu": 2048, "cuda": 8192}
REPEATS = 5

Shape = tuple[int, int, int, int]
"""The shape of a matmul: batch, m, k, n for [batch, m, k] @ [batch, k, n]."""


def measure(job: Job) -> Measured:
    """In each step, measure an update, a large square matmul, and the update's matmuls alone, in turn.

    A multiply-add counts as two floating-point operations.
    """
    device = choose_device(job.config.model.device)
    dtype = choose_dtype(job.config.model.compute_dtype, device)
    peaks = Peaks(device)
    steps = []
    with context_of(job) as context:
        rollout = made_up(context)
        flops, shapes = count(lambda: update_once(context, rollout))
        peaks.enter("update")
        for _ in range(job.warm_up + job.steps):
            seconds = update_once(context, rollout)
            square = SQUARE[device.type]
            rate = flop((1, square, square, square)) / matmul_seconds((1, square, square, square), dtype, device)
            alone = sum(number * matmul_seconds(shape, dtype, device) for shape, number in shapes.items())
            of_shapes = sum(number * flop(shape) for shape, number in shapes.items())
            steps.append(
                {
                    "seconds": seconds,
                    "flops": float(flops),
                    "square_flops_per_second": rate,
                    "shapes_flops_per_second": of_shapes / alone,
                    "update_to_matmul": seconds * rate / flops,
                    "update_to_shapes": seconds * (of_shapes / alone) / flops,
                }
            )
        return Measured(steps[job.warm_up :], peaks.read(), about(job, context.policy.device, context.prompts))


def flop(shape: Shape) -> int:
    return 2 * math.prod(shape)


def matmul_seconds(shape: Shape, dtype: torch.dtype, device: torch.device) -> float:
    """Return the median seconds of one matmul of this shape, after a warm-up."""
    batch, m, k, n = shape
    size = () if batch == 1 else (batch,)
    left = torch.randn(*size, m, k, dtype=dtype, device=device)
    right = torch.randn(*size, k, n, dtype=dtype, device=device)
    times = []
    for _ in range(REPEATS + 1):
        _wait(device)
        started = time.perf_counter()
        left @ right
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count(work: Callable[[], Any]) -> tuple[int, Counter[Shape]]:
    """Count the floating-point operations of ``work`` and its matmuls by shape, as executed, forward and backward.

    This uses torch's FlopCounterMode, extended by the operators that it does not know: matmuls with a 4-bit weight
    (bitsandbytes; its backward dequantizes the weight and uses a plain matmul) or a weight packed by oneDNN, matmuls
    that add in place, and attention on the CPU.
    """
    shapes: Counter[Shape] = Counter()

    def matmul(left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
        *batch, m, k = left
        shape = (math.prod(batch), m, k, right[-1])
        shapes[shape] += 1
        return flop(shape)

    def added(_bias: Any, left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
        return matmul(left, right)

    def packed(left: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        outputs, inputs = weight
        return matmul((math.prod(left[:-1]), inputs), (inputs, outputs))

    def four_bit(left: Sequence[int], _bytes: Any, weight: Sequence[int], *_: Any, **__: Any) -> int:
        return packed(left, weight)

    def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    def attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(grad, query, key, value))

    known = {
        aten.mm: matmul,
        aten.bmm: matmul,
        aten.addmm: added,
        aten.addmm_: added,
        aten.baddbmm: added,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    for library, name, formula in (("bitsandbytes", "gemm_4bit", four_bit), ("mkldnn", "_linear_pointwise", packed)):
        if (product := getattr(getattr(torch.ops, library), name, None)) is not None:
            known[product] = formula
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        work()
    return int(counter.get_total_flops()), shapes
