"""The process that tries libraries that may be broken: ``python -m aapo_desk.doctor.worker JOB...``.

It prints one JSON object per line: ``{"job": J}`` when a job begins, then ``{"job": J, "found": {...}}`` or
``{"job": J, "error": "..."}``. Each job imports only what it checks.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import warnings
from collections.abc import Callable
from typing import IO, Any

from aapo_desk.preview import own_standard_output, silence_libraries


def graphics() -> dict[str, Any]:
    """Ask the NVIDIA driver for the cards and their memory."""
    from aapo_desk.hardware import graphics as look

    return dataclasses.asdict(look())


def torch() -> dict[str, Any]:
    """Report torch's build, and whether it can compute on the CPU and, if it sees one, on the GPU."""
    import torch

    # A library that is broken inside may import without error, but a matrix product fails.
    (torch.ones(4, 4) @ torch.ones(4, 4)).sum().item()
    found: dict[str, Any] = {"cuda": torch.version.cuda}
    if torch.version.cuda is None:
        return found
    found["archs"] = torch.cuda.get_arch_list()
    try:
        torch.cuda.init()
        found["devices"] = torch.cuda.device_count()
        found["name"] = torch.cuda.get_device_name(0)
        found["capability"] = torch.cuda.get_device_capability(0)
        for dtype in (torch.float32, torch.float16):
            square = torch.ones(16, 16, device="cuda", dtype=dtype)
            (square @ square).sum().item()
    except (RuntimeError, AssertionError) as error:
        found["error"] = first_line(error)
    return found


def bitsandbytes() -> dict[str, Any]:
    """Check that bitsandbytes converts numbers to NF4 and back, on the GPU if torch sees one."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    numbers = torch.linspace(-1, 1, 64 * 64).reshape(64, 64)
    packed, state = quantize_4bit(numbers.to(device), compress_statistics=True, quant_type="nf4")
    apart = float((dequantize_4bit(packed, state).cpu() - numbers).abs().max())
    if not apart < 0.2:  # half the widest gap between two of NF4's sixteen values is 0.15
        raise RuntimeError(f"4-bit numbers are decoded wrongly on {device}: the error is {apart:.3g}, on a scale of 1")
    return {"device": device}


def imported(*names: str) -> Callable[[], dict[str, Any]]:
    """Return a job that imports these modules, or attributes of modules as ``module:attribute``."""

    def job() -> dict[str, Any]:
        for name in names:
            module, _, attribute = name.partition(":")
            found = importlib.import_module(module)
            if attribute:
                getattr(found, attribute)  # transformers imports its parts lazily
        return {}

    return job


def hub() -> dict[str, Any]:
    """Check whether the hub answers, and whether it accepts the token."""
    from aapo_desk.doctor.hub import who_am_i

    return who_am_i()


def probe(quantization: str) -> dict[str, Any]:
    """Run one tiny training step."""
    from aapo_desk.doctor.probe import probe as step

    return dataclasses.asdict(step(quantization))


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    "graphics": graphics,
    "torch": torch,
    "bitsandbytes": bitsandbytes,
    "transformers": imported("transformers:AutoModelForCausalLM", "transformers:AutoTokenizer"),
    "accelerate": imported("accelerate"),
    "peft": imported("peft"),
    "datasets": imported("datasets"),
    "textual": imported("textual.app"),
    "unsloth": imported("unsloth:FastLanguageModel"),
    "hub": hub,
    "probe": probe,
}


def first_line(error: BaseException) -> str:
    """Return an exception on one line."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def main(jobs: list[str]) -> int:
    answers = own_standard_output()
    silence_libraries()
    for job in jobs:
        _say(answers, {"job": job})
        name, _, argument = job.partition(":")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = JOBS[name](*([argument] if argument else []))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any failure of a library is a result
            _say(answers, {"job": job, "error": first_line(error)})
        else:
            _say(answers, {"job": job, "found": found})
    return 0


def _say(answers: IO[str], said: dict[str, Any]) -> None:
    answers.write(json.dumps(said, default=str) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
