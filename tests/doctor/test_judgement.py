"""The doctor's findings on machines, most of which are made up."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from aapo_desk.doctor.facts import Facts, Hub, Library, Place, Probe, Terminal, Torch
from aapo_desk.doctor.finding import Finding
from aapo_desk.doctor.graphics import code_for
from aapo_desk.doctor.judgement import findings
from aapo_desk.hardware import Graphics, Holder
from tests.doctor.machines import ARCHS, HOBBYIST, LAPTOP, card, with_card, with_library


def told(facts: Facts, name: str) -> Finding:
    (found,) = [finding for finding in findings(facts) if finding.name == name]
    return found


def states(facts: Facts) -> dict[str, str]:
    """Return the findings that are not ok."""
    return {finding.name: finding.state for finding in findings(facts) if finding.state != "ok"}


def test_where_all_is_well_nothing_else_is_said() -> None:
    assert states(HOBBYIST) == {}
    assert told(HOBBYIST, "gpu").found == "NVIDIA GeForce RTX 4060, 8.0 GB, compute capability 8.9"
    assert told(HOBBYIST, "gpu memory").found == "7.6 of 8.0 GB free; used by Xorg (1200, 0.3 GB)"
    assert told(HOBBYIST, "precision").found == "bfloat16"
    assert told(HOBBYIST, "training").found == "works on NVIDIA GeForce RTX 4060; --probe runs a real step"


def test_without_a_gpu_training_works_on_the_processor() -> None:
    assert states(LAPTOP) == {"gpu": "warning"}
    assert told(LAPTOP, "training").found.startswith("works on the CPU")
    assert [finding.name for finding in findings(LAPTOP) if finding.name in ("driver", "precision", "gpu memory")] == []


def mismatch(error: str) -> Facts:
    return replace(HOBBYIST, graphics=Graphics(error=error), torch=Torch("13.0", archs=ARCHS, error="no driver"))


OLD_DRIVER = replace(
    HOBBYIST,
    graphics=replace(HOBBYIST.graphics, driver="535.183.01", cuda=(12, 2)),
    torch=Torch("13.0", archs=ARCHS, error="RuntimeError: The NVIDIA driver on your system is too old"),
)
OLDER_MINOR = replace(
    HOBBYIST,
    graphics=replace(HOBBYIST.graphics, driver="535.183.01", cuda=(12, 2)),
    torch=replace(HOBBYIST.torch, cuda="12.8"),  # type: ignore[type-var]
)
TURING = with_card(card("NVIDIA GeForce RTX 2070", (7, 5)))
PASCAL = with_card(
    card("NVIDIA GeForce GTX 1080 Ti", (6, 1)), error="RuntimeError: CUDA error: no kernel image is available"
)
CPU_BUILD = replace(HOBBYIST, torch=Torch(None))
HIDDEN = replace(
    HOBBYIST,
    system=replace(HOBBYIST.system, visible_devices=""),
    torch=Torch("13.0", archs=ARCHS, error="RuntimeError: No CUDA GPUs are available"),
)
WSL = replace(HOBBYIST, system=replace(HOBBYIST.system, wsl=2, vendors=()))

CASES: dict[str, tuple[Facts, str, str, str, str]] = {
    # machine: name of the finding, its state, what is found, what to do
    "a card without bfloat16": (
        TURING,
        "precision",
        "warning",
        r"no bfloat16.*this card has 7\.5; runs use float16 with loss scaling",
        r"Gemma 3 and Qwen3\.5 .*compute_dtype=float32",
    ),
    "a driver too old for torch": (
        OLD_DRIVER,
        "driver",
        "problem",
        r"535\.183\.01, supports CUDA up to 12\.2: too old for this torch, which is built for CUDA 13\.0",
        r"Update the driver to 580 or newer, or .*whl/cu126; .*model\.device=cpu",
    ),
    "that driver, as torch tells it": (OLD_DRIVER, "torch", "problem", r"too old", r"driver first"),
    "an older driver of the same CUDA": (OLDER_MINOR, "driver", "ok", r"runs on every driver for CUDA 12", r"^$"),
    "a card that torch has no code for": (
        PASCAL,
        "torch",
        "problem",
        r"no code for compute capability 6\.1 \(it has sm_75",
        r"whl/cu126",
    ),
    "torch built without CUDA": (CPU_BUILD, "torch", "problem", r"built without CUDA", r"whl/cu130"),
    "a card that is hidden": (HIDDEN, "torch", "problem", r"CUDA_VISIBLE_DEVICES='' hides it", r"Unset"),
    "a driver that does not answer": (
        mismatch("Driver Not Loaded"), "gpu", "problem", r"does not answer: Driver Not Loaded", r"--gpus all.*=cpu",
    ),
    "a driver that was updated under way": (
        mismatch("RM has detected an NVML/RM version mismatch."), "gpu", "problem", r"mismatch", r"restart the machine",
    ),
    "an AMD card": (
        replace(LAPTOP, system=replace(LAPTOP.system, vendors=("amd",))), "gpu", "warning", r"no NVIDIA GPU", r"AMD",
    ),
    "WSL without a card": (
        replace(LAPTOP, system=replace(LAPTOP.system, wsl=2, vendors=())), "gpu", "warning", r"NVIDIA", r"in Windows",
    ),
    "a card in use": (
        replace(
            HOBBYIST,
            graphics=replace(
                HOBBYIST.graphics,
                gpus=(card(used=6000),),
                holders=((Holder(7, "python3", 5200), Holder(8, "firefox", None)),),
            ),
        ),
        "gpu memory",
        "warning",
        r"2\.1 of 8\.0 GB free; used by python3 \(7, 5\.1 GB\), firefox \(8\)",
        r"aapo-desk runs",
    ),
    "a card in use by nobody we see": (
        replace(HOBBYIST, graphics=replace(HOBBYIST.graphics, gpus=(card(used=6000),), holders=((),))),
        "gpu memory", "warning", r"2\.1 of 8\.0 GB free$", r"does not name",
    ),
    "no torch": (
        replace(with_library("torch", Library(None, ">=2.8")), torch=None),
        "torch", "problem", r"not installed", r"'torch>=2\.8'",
    ),
    "a torch that crashes": (
        replace(with_library("torch", Library("2.9.0", error="ended the process by SIGILL")), torch=None),
        "torch", "problem", r"2\.9\.0 does not work: ended the process by SIGILL", r"pip install",
    ),
    "no bitsandbytes": (
        with_library("bitsandbytes", Library(None)), "bitsandbytes", "problem", r"not installed", r"quantization=none",
    ),
    "a bitsandbytes without its CUDA library": (
        with_library("bitsandbytes", Library("0.50.2", error="RuntimeError: libcudart.so.13 is missing")),
        "bitsandbytes", "problem", r"0\.50\.2 does not work: .*libcudart", r"--force-reinstall.*quantization=none",
    ),
    "an old transformers": (
        with_library("transformers", Library("4.51.0", ">=5.17", fits=False)),
        "transformers", "warning", r"4\.51\.0; >=5\.17 is required", r"pip install 'transformers>=5\.17'",
    ),
    "a broken peft": (
        with_library("peft", Library("0.21.2", ">=0.21", error="ImportError: no HybridCache")),
        "peft", "problem", r"ImportError: no HybridCache; needed for adapters", r"pip install",
    ),
    "a broken datasets": (
        with_library("datasets", Library("5.2.0", error="hung")), "datasets", "warning", r"data sets", r"pip install",
    ),
    "an unsloth that is not there": (HOBBYIST, "unsloth", "ok", r"not installed; it is optional", r"^$"),
    "an unsloth that does not import": (
        with_library("unsloth", Library("2026.10.7", error="NotImplementedError: needs a GPU")),
        "unsloth", "warning", r"needs a GPU", r"optional",
    ),
    "an unsloth that works": (with_library("unsloth", Library("2026.10.9")), "unsloth", "ok", r"^2026\.10\.9$", r"^$"),
    "no network": (
        replace(HOBBYIST, hub=Hub("https://huggingface.co", error="[Errno -2] Name or service not known")),
        "hub", "warning", r"huggingface\.co cannot be reached: .*Name or service", r"HTTPS_PROXY.*--offline",
    ),
    "a hub that is down": (
        replace(HOBBYIST, hub=Hub("https://huggingface.co", status=503)), "hub", "warning", r"status 503", r"later",
    ),
    "offline by wish": (
        replace(HOBBYIST, hub=Hub("https://huggingface.co", "--offline")), "hub", "ok", r": --offline", r"Only",
    ),
    "no token": (
        replace(HOBBYIST, hub=Hub("https://huggingface.co", status=401)),
        "token", "warning", r"none: gated models \(Llama, Gemma\)", r"hf auth login",
    ),
    "no token, but a hub that answers": (
        replace(HOBBYIST, hub=Hub("https://huggingface.co", status=401)), "hub", "ok", r"face\.co answers", r"^$",
    ),
    "a token that has expired": (
        replace(HOBBYIST, hub=Hub("https://huggingface.co", status=401, token="/home/ada/token")),
        "token", "warning", r"refuses the token in /home/ada/token", r"hf auth login",
    ),
    "a token that could not be tried": (
        replace(HOBBYIST, hub=Hub("https://huggingface.co", "HF_HUB_OFFLINE", token="HF_TOKEN")),
        "token", "ok", r"not checked with the hub", r"^$",
    ),
    "a home that cannot be written": (
        replace(HOBBYIST, runs=Place("/srv/desk", 9000, False)),
        "disk: runs", "problem", r"/srv/desk, 8\.8 GB free: not writable", r"AAPO_DESK_HOME",
    ),
    "a full disk": (replace(HOBBYIST, runs=Place("/d", 90, True)), "disk: runs", "problem", r"0\.1 GB free", r"Free"),
    "a disk to be full": (replace(HOBBYIST, runs=Place("/d", 900, True)), "disk: runs", "warning", r"0\.9 GB", r"Free"),
    "a home in Windows' part": (
        replace(WSL, runs=Place("/mnt/c/desk", 90_000, True, "9p", network=True)),
        "disk: runs", "warning", r"on 9p, where SQLite's write-ahead log", r"not below /mnt",
    ),
    "little room for models": (
        replace(HOBBYIST, models=Place("/c", 5000, True)), "disk: models", "warning", r"4\.9 GB free", r"HF_HUB_CACHE",
    ),
    "a cache that cannot be written": (
        replace(HOBBYIST, models=Place("/c", 50_000, False)), "disk: models", "warning", r"not writable", r"perm",
    ),
    "little memory": (
        replace(LAPTOP, system=replace(LAPTOP.system, memory_available=2500)), "memory", "warning", r"2\.4 ", r"Close",
    ),
    "no memory": (
        replace(LAPTOP, system=replace(LAPTOP.system, memory_available=500)), "memory", "problem", r"0\.5 of", r"Close",
    ),
    "WSL2": (WSL, "system", "ok", r"WSL2", r"Windows uses.*aapo-desk fit"),
    "WSL1": (replace(WSL, system=replace(WSL.system, wsl=1)), "system", "warning", r"WSL1", r"--set-version"),
    "macOS": (replace(LAPTOP, system=replace(LAPTOP.system, os="Darwin")), "system", "problem", r"need Linux", r"WSL2"),
    "no terminal": (replace(HOBBYIST, terminal=Terminal(None)), "terminal", "ok", r"none", r"^$"),
    "a small terminal": (
        replace(HOBBYIST, terminal=Terminal((70, 20), "xterm-256color", 256)),
        "terminal", "warning", r"70 x 20, 256 colours: the app needs 80 x 24", r"larger",
    ),
    "a dumb terminal": (
        replace(HOBBYIST, terminal=Terminal((80, 24), "dumb")), "terminal", "warning", r"cannot be shown", r"TERM=",
    ),
    "a terminal of 16 colours": (
        replace(HOBBYIST, terminal=Terminal((80, 24), "xterm", 16)), "terminal", "warning", r"16 colours", r"COLORTERM",
    ),
    "NO_COLOR": (
        replace(HOBBYIST, terminal=Terminal((80, 24), "xterm", 16, no_colour=True)), "terminal", "ok", r"greys", r"^$",
    ),
    "a locale without UTF-8": (
        replace(HOBBYIST, terminal=Terminal((80, 24), "xterm", 256, symbols=False)),
        "terminal", "warning", r"not UTF-8", r"LANG=C\.UTF-8.*AAPO_DESK_ASCII=0",
    ),
    "tmux as it comes": (
        replace(HOBBYIST, terminal=Terminal((80, 24), "tmux-256color", 256, multiplexer="tmux", clipboard="external")),
        "clipboard", "warning", r"external", r"set -s set-clipboard on",
    ),
    "tmux as it should be": (
        replace(HOBBYIST, terminal=Terminal((80, 24), "tmux-256color", 256, multiplexer="tmux", clipboard="on")),
        "clipboard", "ok", r"is on", r"^$",
    ),
    "a probe that failed": (
        replace(HOBBYIST, probe=Probe(error="ended the process by SIGSEGV")), "probe", "problem", r"SIGSEGV", r"first",
    ),
    "a probe on an old card": (
        replace(TURING, probe=Probe("cuda", "float16", "nf4", 0.4, 0.3, 0.02, 65536.0)),
        "probe", "ok", r"on cuda, 4-bit weights, float16, loss scale 65536: 0\.4 s", r"^$",
    ),
    "a fast path that is wrong": (
        replace(HOBBYIST, probe=Probe("cuda", "bfloat16", "nf4", paths={"fixed_steps": "it differs by 0.4"})),
        "captured step", "warning", r"it differs by 0\.4", r"do not use it",
    ),
    "a fast path that is right": (
        replace(HOBBYIST, probe=Probe("cuda", "bfloat16", "nf4", paths={"fixed_steps": None})),
        "captured step", "ok", r"agrees", r"^$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_machine_gets_its_finding_and_what_to_do(case: str) -> None:
    facts, name, state, found, advice = CASES[case]
    finding = told(facts, name)
    assert finding.state == state
    assert re.search(found, finding.found), finding.found
    assert re.search(advice, finding.advice), finding.advice


@pytest.mark.parametrize("case", CASES)
def test_what_is_a_problem_ends_the_verdict_and_what_is_a_warning_does_not(case: str) -> None:
    facts = CASES[case][0]
    *others, verdict = findings(facts)
    broken = [finding.name for finding in others if finding.state == "problem"]
    assert verdict.name == "training"
    assert verdict.state == ("problem" if broken else "ok")
    assert all(name in verdict.found for name in broken)
    assert all(finding.advice for finding in others if finding.state != "ok")


@pytest.mark.parametrize(
    ("archs", "capability", "runs"),
    [
        (("sm_75", "sm_80", "sm_86", "sm_90"), (8, 9), True),  # a minor version of the same major
        (("sm_75", "sm_80", "sm_86", "sm_90"), (7, 0), False),
        (("sm_75", "sm_80", "sm_86", "sm_90"), (12, 0), False),  # a card newer than the build
        (("sm_90", "compute_90"), (12, 0), True),  # which the driver compiles for
        (("sm_100", "sm_120"), (12, 1), True),
        (("sm_86",), (8, 0), False),
        ((), (8, 6), True),
        (("sm_75",), None, True),
    ],
)
def test_a_build_runs_on_the_cards_it_has_code_for(
    archs: tuple[str, ...], capability: tuple[int, int] | None, runs: bool
) -> None:
    assert code_for(archs, capability) == runs
