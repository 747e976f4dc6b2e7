"""Collect the facts about this machine. Libraries that may be broken are tried in a separate process."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from packaging.requirements import Requirement

from aapo_desk.doctor import hub
from aapo_desk.doctor.asking import Answer, ask
from aapo_desk.doctor.facts import LIBRARIES, Facts, Hub, Library, Place, Probe, System, Terminal, Torch
from aapo_desk.hardware import Gpu, Graphics, Holder, spare_memory
from aapo_desk.locales import shows_symbols
from aapo_desk.models import unsloth
from aapo_desk.store import NETWORK_FILE_SYSTEMS, file_system, home

IMPORT_SECONDS = 120.0
"""Time limit of a job. The first import of torch from a slow disk takes a large part of it."""
HUB_SECONDS = 15.0
PROBE_SECONDS = 300.0
VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}


def look(offline: bool = False, probe: bool = False) -> Facts:
    """Collect all facts. ``offline``: make no connection. This takes some seconds and raises nothing."""
    jobs = ["graphics", *LIBRARIES]
    variables = {"HF_HUB_OFFLINE": "1"} if offline else {}
    reached = hub.without_asking(offline)
    with ThreadPoolExecutor(2) as asking:
        later = None if reached.offline else asking.submit(ask, ["hub"], HUB_SECONDS, variables)
        answers = ask(jobs, IMPORT_SECONDS, variables)
        if later:
            reached = _hub(reached, later.result()["hub"])
    libraries = {name: library(name, answers[name]) for name in LIBRARIES}
    if installed("unsloth"):  # in a separate process, because it must be imported before transformers
        its_own = {**unsloth.variables("auto"), **variables}
        libraries["unsloth"] = library("unsloth", ask(["unsloth"], IMPORT_SECONDS, its_own)["unsloth"])
    facts = Facts(
        system=system(),
        graphics=_graphics(answers["graphics"]),
        torch=_torch(answers["torch"]),
        libraries=libraries,
        hub=reached,
        runs=place(home()),
        models=place(_cache()),
        terminal=terminal(os.environ),
    )
    return replace(facts, probe=_probe(facts, variables)) if probe else facts


def system() -> System:
    memory = spare_memory()
    return System(
        os=platform.system(),
        release=platform.release(),
        python=platform.python_version(),
        cores=psutil.cpu_count() or 1,
        memory_total=memory.total >> 20,
        memory_available=memory.available >> 20,
        wsl=wsl(platform.release()),
        vendors=_vendors(),
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def wsl(release: str) -> int:
    """Return the WSL version of a kernel release, or 0. WSL1 kernels say "Microsoft", WSL2 kernels "microsoft"."""
    if "microsoft" not in release.lower():
        return 0
    return 2 if "microsoft" in release or "WSL2" in release else 1


def _vendors() -> tuple[str, ...]:
    """Return the vendors of the display controllers (PCI class 03) on the bus."""
    found = []
    for device in sorted(Path("/sys/bus/pci/devices").glob("*")):
        try:
            kind, vendor = ((device / name).read_text().strip() for name in ("class", "vendor"))
        except OSError:
            continue
        if kind.startswith("0x03") and vendor in VENDORS:
            found.append(VENDORS[vendor])
    return tuple(dict.fromkeys(found))


def installed(name: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def library(name: str, answer: Answer) -> Library:
    """Return the installed version of a library, the required one, and whether the library works."""
    version, wanted = installed(name), _wanted(name)
    if version is None:
        return Library(None, wanted)
    fits = not wanted or Requirement(f"{name}{wanted}").specifier.contains(version, prereleases=True)
    return Library(version, wanted, fits, answer.error)


def _wanted(name: str) -> str:
    """Return the versions that the installed package requires, or "" if it does not say."""
    try:
        lines = metadata.requires("aapo-desk") or []
    except metadata.PackageNotFoundError:  # a checkout
        return ""
    asked = [Requirement(line) for line in lines]
    return next((str(one.specifier) for one in asked if one.name == name), "")


def _graphics(answer: Answer) -> Graphics:
    if answer.found is None:
        return Graphics(error=answer.error)
    found = dict(answer.found)
    found["cuda"] = tuple(found["cuda"]) if found["cuda"] else None
    cards = [gpu | {"compute_capability": _pair(gpu["compute_capability"])} for gpu in found["gpus"]]
    found["gpus"] = tuple(Gpu(**gpu) for gpu in cards)
    found["holders"] = tuple(tuple(Holder(**holder) for holder in holders) for holders in found["holders"])
    return Graphics(**found)


def _torch(answer: Answer) -> Torch | None:
    if answer.found is None:
        return None
    found = dict(answer.found)
    found["archs"] = tuple(found.get("archs", ()))
    found["capability"] = _pair(found.get("capability"))
    return Torch(**found)


def _pair(numbers: list[int] | None) -> tuple[int, int] | None:
    return (numbers[0], numbers[1]) if numbers else None


def _hub(known: Hub, answer: Answer) -> Hub:
    found = answer.found or {}
    return replace(known, status=found.get("status"), error=found.get("error") or answer.error)


def _probe(facts: Facts, variables: Mapping[str, str]) -> Probe:
    four_bit = facts.libraries["bitsandbytes"]
    job = f"probe:{'nf4' if four_bit.version and not four_bit.error else 'none'}"
    answer = ask([job], PROBE_SECONDS, variables)[job]
    return Probe(**answer.found) if answer.found is not None else Probe(error=answer.error)


def _cache() -> Path:
    """Return the folder of the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def place(folder: Path) -> Place:
    """Return the facts about a folder, or about its nearest existing parent if it does not exist yet."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free = shutil.disk_usage(there).free >> 20
    except OSError:
        free = None
    kind = file_system(there.resolve())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return Place(str(folder), free, writable, kind, kind in NETWORK_FILE_SYSTEMS)


def terminal(variables: Mapping[str, str]) -> Terminal:
    """Return the terminal that this process was started in, even if its output goes into a pipe."""
    size = next((found for stream in (1, 2, 0) if (found := _size(stream))), None)
    multiplexer = "tmux" if variables.get("TMUX") else "screen" if variables.get("STY") else None
    return Terminal(
        size=size,
        name=variables.get("TERM", ""),
        colours=colours(variables),
        no_colour=bool(variables.get("NO_COLOR")),
        symbols=shows_symbols(variables, sys.stdout.encoding),
        multiplexer=multiplexer,
        clipboard=_tmux_clipboard() if multiplexer == "tmux" else None,
    )


def _size(stream: int) -> tuple[int, int] | None:
    try:
        found: Any = os.get_terminal_size(stream)
    except OSError:
        return None
    return found.columns, found.lines


def colours(variables: Mapping[str, str]) -> int:
    """Return how many colours the terminal claims to support."""
    name = variables.get("TERM", "")
    if name in ("", "dumb"):
        return 0
    if variables.get("COLORTERM", "").lower() in ("truecolor", "24bit") or name.endswith("-direct"):
        return 1 << 24
    return 256 if re.search("256|kitty|alacritty|ghostty|wezterm", name) else 16


def _tmux_clipboard() -> str | None:
    try:
        done = subprocess.run(
            ["tmux", "show-options", "-s", "-v", "set-clipboard"], capture_output=True, text=True, timeout=2, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
