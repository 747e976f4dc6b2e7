"""Machines that we do not have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aapo_desk.doctor.facts import LIBRARIES, Facts, Hub, Library, Place, System, Terminal, Torch
from aapo_desk.hardware import Gpu, Graphics, Holder

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")


def card(name: str = "NVIDIA GeForce RTX 4060", capability: tuple[int, int] = (8, 9), used: int = 400) -> Gpu:
    return Gpu(name, 8188, used, 1, 40, 20.0, capability)


HOBBYIST = Facts(
    system=System("Linux", "6.8.0-60-generic", "3.12.3", 12, 32000, 24000, vendors=("nvidia",)),
    graphics=Graphics("580.95.05", (13, 0), (card(),), ((Holder(1200, "Xorg", 310),),)),
    torch=Torch("13.0", 1, ARCHS, "NVIDIA GeForce RTX 4060", (8, 9)),
    libraries={name: Library("1.2.3", ">=1") for name in LIBRARIES},
    hub=Hub("https://huggingface.co", status=200, token="HF_TOKEN"),
    runs=Place("/home/ada/.local/share/aapo-desk", 200_000, True, "ext4"),
    models=Place("/home/ada/.cache/huggingface/hub", 200_000, True, "ext4"),
    terminal=Terminal((120, 40), "xterm-256color", 1 << 24),
)
"""One with an 8 GB card where all is well."""

LAPTOP = replace(
    HOBBYIST,
    system=replace(HOBBYIST.system, vendors=("intel",)),
    graphics=Graphics(error="NVML Shared Library Not Found"),
    torch=Torch(None),
)
"""One without a card."""


def with_card(gpu: Gpu, **torch: Any) -> Facts:
    """The hobbyist's with another card, which torch sees."""
    assert HOBBYIST.torch
    seen = replace(HOBBYIST.torch, name=gpu.name, capability=gpu.compute_capability)
    return replace(HOBBYIST, graphics=replace(HOBBYIST.graphics, gpus=(gpu,)), torch=replace(seen, **torch))


def with_library(name: str, library: Library, facts: Facts = HOBBYIST) -> Facts:
    return replace(facts, libraries=dict(facts.libraries) | {name: library})
