"""Checks of the GPU, of its driver, and of whether torch's build fits both."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aapo_desk.doctor.facts import Facts, Torch
from aapo_desk.doctor.finding import Finding, gb, ok, problem, warning
from aapo_desk.hardware import BFLOAT16_FROM, Gpu, Holder

ON_THE_CPU = "until then, --set model.device=cpu trains on the CPU"
TAKEN_MB, TAKEN_SHARE = 1536, 0.15
"""If other processes use more of a card's memory than both limits (MiB and fraction), a warning is shown. A desktop
uses less."""
FIRST_DRIVERS = {12: "525.60", 13: "580"}
"""The oldest Linux driver for each major version of CUDA (NVIDIA's compatibility guide). Within a major version, newer
minor versions of CUDA run on older drivers."""
INDEX = "https://download.pytorch.org/whl"


def card(facts: Facts) -> Iterator[Finding]:
    """Report the cards, or why there is none."""
    for index, gpu in enumerate(facts.graphics.gpus):
        name = "gpu" if len(facts.graphics.gpus) == 1 else f"gpu {index}"
        yield ok(name, f"{gpu.name}, {gb(gpu.memory_total)} GB, compute capability {version(gpu.compute_capability)}")
    if not facts.graphics.gpus:
        yield _silent_driver(facts) if facts.has_gpu else _no_card(facts)


def _no_card(facts: Facts) -> Finding:
    found = "no NVIDIA GPU: runs use the CPU, which is enough for models of the demo's size"
    if "amd" in facts.system.vendors:
        return warning("gpu", found, "There is an AMD card, but only NVIDIA cards are supported.")
    if facts.system.wsl:
        advice = (
            "If there is a card, install NVIDIA's driver in Windows, not here; then run in Windows: wsl --shutdown."
        )
        return warning("gpu", found, advice)
    return warning("gpu", found, "Try the demo on the CPU: aapo-desk demo.")


def _silent_driver(facts: Facts) -> Finding:
    error = facts.graphics.error or "it reports no card"
    found = f"there is an NVIDIA card, but its driver does not answer: {error}"
    if "mismatch" in error.lower():
        advice = "The driver was updated while it was running: restart the machine"
    elif "lost" in error.lower() or "requires restart" in error.lower():
        advice = "The card has stopped responding: restart the machine; if it happens again, check power and cooling"
    else:
        advice = (
            "Install the driver (Ubuntu: sudo ubuntu-drivers install) and restart; in a container, start it with "
            "--gpus all"
        )
    return problem("gpu", found, f"{advice}; {ON_THE_CPU}.")


def driver(facts: Facts) -> Iterator[Finding]:
    """Check the driver against the CUDA version that torch is built for."""
    graphics = facts.graphics
    if graphics.driver is None:
        return
    found = f"{graphics.driver}, supports CUDA up to {version(graphics.cuda)}"
    built = facts.torch and facts.torch.cuda
    if not built or graphics.cuda is None:
        yield ok("driver", found)
        return
    wanted = parsed(built)
    if graphics.cuda[0] < wanted[0]:
        oldest = FIRST_DRIVERS.get(wanted[0])
        advice = f"Update the driver{f' to {oldest} or newer' if oldest else ''}"
        if graphics.cuda[0] == 12:
            advice += f", or install a torch for CUDA 12: {_install(facts, 'cu126')}"
        yield problem(
            "driver",
            f"{found}: too old for this torch, which is built for CUDA {built}",
            f"{advice}; {ON_THE_CPU}.",
        )
    elif graphics.cuda < wanted:
        yield ok("driver", f"{found}; torch is built for {built}, which runs on every driver for CUDA {wanted[0]}")
    else:
        yield ok("driver", found)


def torch(facts: Facts) -> Iterator[Finding]:
    """Check torch's build against the cards."""
    library, known = facts.libraries["torch"], facts.torch
    if library.version is None or known is None:
        why = "is not installed" if library.version is None else f"{library.version} does not work: {library.error}"
        yield problem("torch", f"torch {why}", f"Install it again: {_install(facts)}.")
        return
    found = f"torch {library.version}"
    misfit = "" if library.fits else f"; {library.wanted} is required"
    if facts.on_gpu or not facts.has_gpu:
        what = f"{found}, computes on {known.name}" if facts.on_gpu else f"{found}, computes on the CPU"
        advice = f"{_install(facts)}." if misfit else ""
        yield Finding("torch", "warning" if misfit else "ok", what + misfit, advice)
    elif facts.graphics.gpus:  # else the driver is the problem, which ``card`` reports
        yield _blind(facts, known, found + misfit)


def _blind(facts: Facts, known: Torch, found: str) -> Finding:
    """Report why torch cannot use the card that the driver reports."""
    hidden = facts.system.visible_devices
    if known.cuda is None:
        index = "cu130" if facts.graphics.cuda is not None and facts.graphics.cuda[0] >= 13 else "cu126"
        advice = f"Install a build for NVIDIA's GPUs: {_install(facts, index)}; {ON_THE_CPU}."
        return problem("torch", f"{found} is built without CUDA and cannot use the GPU", advice)
    capability = known.capability or facts.graphics.gpus[0].compute_capability
    if not code_for(known.archs, capability):
        what = f"{found} has no code for compute capability {version(capability)} (it has {', '.join(known.archs)})"
        advice = f"Install a build that supports it: {_install(facts, 'cu126')}; {ON_THE_CPU}."
        return problem("torch", what, advice)
    if hidden is not None and known.devices == 0:
        what = f"{found} sees no GPU: CUDA_VISIBLE_DEVICES={hidden!r} hides it"
        return problem("torch", what, f"Unset CUDA_VISIBLE_DEVICES, or set it to a card, such as 0; {ON_THE_CPU}.")
    why = known.error or "it sees none"
    advice = f"Check the driver first; then restart the machine, or install torch again; {ON_THE_CPU}."
    return problem("torch", f"{found} cannot use the GPU: {why}", advice)


def _install(facts: Facts, index: str | None = None) -> str:
    """Return the command that installs torch. ``index`` selects torch's package index for a version of CUDA."""
    wanted = facts.libraries["torch"].wanted or ">=2.8"
    return f"pip install --force-reinstall 'torch{wanted}'" + (f" --index-url {INDEX}/{index}" if index else "")


def code_for(archs: tuple[str, ...], capability: tuple[int, int] | None) -> bool:
    """Return whether a build with code for these architectures runs on a card of this compute capability.

    Code for sm_86 runs on 8.6 to 8.9 (the same major version, an equal or newer minor one). compute_86 can be compiled
    for any newer card. Returns True if too little is known.
    """
    if capability is None or not archs:
        return True
    for arch in archs:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", arch)
        if match is None:
            continue
        built = int(match[2]), int(match[3])
        if built <= capability and (match[1] == "compute" or built[0] == capability[0]):
            return True
    return False


def precision(facts: Facts) -> Iterator[Finding]:
    """Report the data type that a run computes in on this card."""
    capability = facts.torch.capability if facts.torch else None
    if capability is None and facts.graphics.gpus:
        capability = facts.graphics.gpus[0].compute_capability
    if capability is None:
        return
    if capability >= BFLOAT16_FROM:
        yield ok("precision", "bfloat16")
        return
    yield warning(
        "precision",
        f"no bfloat16, which needs compute capability 8.0: this card has {version(capability)}; runs use float16 with "
        "loss scaling",
        "Gemma 3 and Qwen3.5 models cannot run in float16: use another family, or model.compute_dtype=float32.",
    )


def memory(facts: Facts) -> Iterator[Finding]:
    """Report the free memory of each card, and which processes use the rest."""
    for index, gpu in enumerate(facts.graphics.gpus):
        name = "gpu memory" if len(facts.graphics.gpus) == 1 else f"gpu {index} memory"
        free = gpu.memory_total - gpu.memory_used
        holders = facts.graphics.holders[index] if index < len(facts.graphics.holders) else ()
        found = f"{gb(free)} of {gb(gpu.memory_total)} GB free{_held(holders)}"
        if gpu.memory_used > max(TAKEN_MB, TAKEN_SHARE * gpu.memory_total):
            yield warning(name, found, _release(gpu, holders))
        else:
            yield ok(name, found)


def _held(holders: tuple[Holder, ...]) -> str:
    if not holders:
        return ""
    named = [f"{one.name} ({one.pid}{f', {gb(one.memory)} GB' if one.memory is not None else ''})" for one in holders]
    return f"; used by {', '.join(named[:4])}" + (f" and {len(named) - 4} more" if len(named) > 4 else "")


def _release(gpu: Gpu, holders: tuple[Holder, ...]) -> str:
    if holders:
        return "Close the programs that use it, or stop another run (aapo-desk runs lists them)."
    return f"{gb(gpu.memory_used)} GB are used by programs that the driver does not name (another container, Windows)."


def version(numbers: tuple[int, int] | None) -> str:
    return "unknown" if numbers is None else f"{numbers[0]}.{numbers[1]}"


def parsed(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version."""
    major, minor, *_ = [*re.findall(r"\d+", text), "0", "0"]
    return int(major), int(minor)
