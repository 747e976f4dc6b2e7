"""Pure functions that turn facts into findings: what the facts mean for training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aapo_desk.doctor import graphics
from aapo_desk.doctor.facts import Facts, Place
from aapo_desk.doctor.finding import Finding, gb, ok, problem, warning

LEAST_MEMORY_MB, ENOUGH_MEMORY_MB = 1024, 4096
"""The demo needs 4 GB, and a model for the GPU is loaded through the machine's memory."""
LEAST_RUNS_MB, ENOUGH_RUNS_MB = 200, 2048
"""The record of a run and its adapter checkpoints take tens to hundreds of MB."""
ENOUGH_MODELS_MB = 10240
"""A model of 3 billion parameters in 16 bits is 6 GB."""
LEAST_SIZE = (80, 24)
NEEDED = {"transformers": "models", "accelerate": "models", "peft": "adapters"}
"""Libraries that every run needs, and what they are for."""
SOME = {"datasets": "data sets from the hub", "textual": "the screen"}
"""Libraries that only some features need, and which."""


def findings(facts: Facts) -> list[Finding]:
    """Return all findings. The last one says whether training works."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return [*found, training(facts, found)]


def system(facts: Facts) -> Iterator[Finding]:
    known = facts.system
    found = f"{known.os} {known.release}, Python {known.python}, {known.cores} cores"
    if known.os != "Linux":
        advice = "Use Linux, or WSL2 in Windows."
        yield problem("system", f"{found}: the program's locks and processes need Linux", advice)
    elif known.wsl == 1:
        advice = "In Windows: wsl --set-version DISTRIBUTION 2."
        yield warning("system", f"{found}, WSL1: no GPU, and file locks do not work", advice)
    elif known.wsl:
        advice = (
            "If GPU memory runs out, Windows uses main memory instead: there is no error, but steps take many times "
            "longer. Use aapo-desk fit to check the size before."
        )
        yield ok("system", f"{found}, WSL2", advice)
    else:
        yield ok("system", found)


def memory(facts: Facts) -> Iterator[Finding]:
    free = facts.system.memory_available
    found = f"{gb(free)} of {gb(facts.system.memory_total)} GB free"
    if free < LEAST_MEMORY_MB:
        yield problem("memory", f"{found}; the smallest run needs 1 GB", "Close other programs.")
    elif free < ENOUGH_MEMORY_MB:
        yield warning("memory", f"{found}; the demo needs up to 4 GB", "Close other programs.")
    else:
        yield ok("memory", found)


def bitsandbytes(facts: Facts) -> Iterator[Finding]:
    library = facts.libraries["bitsandbytes"]
    without = "or train on 16-bit weights: --set model.quantization=none"
    spec = library.wanted or ">=0.50"
    if library.version is None:
        advice = f"pip install 'bitsandbytes{spec}', {without}."
        yield problem("bitsandbytes", "not installed: no 4-bit weights, which every preset uses", advice)
    elif library.error:
        what = f"{library.version} does not work: {library.error}"
        yield problem("bitsandbytes", what, f"pip install --force-reinstall 'bitsandbytes{spec}', {without}.")
    else:
        where = "the GPU" if facts.on_gpu else "the CPU"
        yield _version("bitsandbytes", facts, f"{library.version}, 4-bit weights work on {where}")


def libraries(facts: Facts) -> Iterator[Finding]:
    for name, purpose in (NEEDED | SOME).items():
        library = facts.libraries[name]
        if library.version and not library.error:
            yield _version(name, facts, library.version)
            continue
        why = f"{library.version} does not work: {library.error}" if library.version else "not installed"
        advice = f"pip install --force-reinstall '{name}{library.wanted}'."
        kind = problem if name in NEEDED else warning
        yield kind(name, f"{why}; needed for {purpose}", advice)


def _version(name: str, facts: Facts, found: str) -> Finding:
    library = facts.libraries[name]
    if library.fits:
        return ok(name, found)
    return warning(name, f"{found}; {library.wanted} is required", f"pip install '{name}{library.wanted}'.")


def unsloth(facts: Facts) -> Iterator[Finding]:
    library = facts.libraries.get("unsloth")
    if library is None:
        yield ok("unsloth", "not installed; it is optional")
    elif library.error:
        advice = "It is optional: model.backend=transformers works without it."
        yield warning("unsloth", f"{library.version} does not work: {library.error}", advice)
    else:
        yield _version("unsloth", facts, library.version or "")


def hub(facts: Facts) -> Iterator[Finding]:
    known = facts.hub
    name = known.endpoint.partition("://")[2] or known.endpoint
    local = "Models and data on this machine can be used with --offline; the demo's model is on the package index."
    if known.offline:
        yield ok("hub", f"not checked: {known.offline}", "Only models and data on this machine can be used.")
    elif known.status is None:
        why = known.error or "no answer"
        advice = f"Check the network, or the proxy (HTTPS_PROXY). {local}"
        yield warning("hub", f"{name} cannot be reached: {why}", advice)
    elif known.status >= 500 or known.status in (407, 429):
        yield warning("hub", f"{name} answers with status {known.status}", f"Try again later. {local}")
    else:
        yield ok("hub", f"{name} answers")


def token(facts: Facts) -> Iterator[Finding]:
    known = facts.hub
    login = "create one at https://huggingface.co/settings/tokens, then run: hf auth login"
    if known.token is None:
        yield warning("token", "none: gated models (Llama, Gemma) cannot be fetched", f"For those, {login}.")
    elif known.status in (401, 403):
        yield warning("token", f"the hub refuses the token in {known.token}", f"It may have expired: {login}.")
    elif known.status == 200:
        advice = "For a gated model, accept its license on its page."
        yield ok("token", f"the hub accepts the token in {known.token}", advice)
    else:
        yield ok("token", f"found in {known.token}; not checked with the hub")


def disk(facts: Facts) -> Iterator[Finding]:
    yield _runs(facts.runs)
    yield _models(facts.models)


def _runs(place: Place) -> Finding:
    name, found = "disk: runs", _described(place)
    elsewhere = "or set AAPO_DESK_HOME to another folder"
    if not place.writable:
        return problem(name, f"{found}: not writable", f"Fix its permissions, {elsewhere}.")
    if place.free is not None and place.free < LEAST_RUNS_MB:
        return problem(name, found, f"Free some space, {elsewhere}.")
    if place.network:
        what = f"{found}: on {place.file_system}, where SQLite's write-ahead log does not work and locks may not work"
        return warning(name, what, "Set AAPO_DESK_HOME to a folder on a local disk (in WSL: not below /mnt).")
    if place.free is not None and place.free < ENOUGH_RUNS_MB:
        return warning(name, found, f"Free some space, {elsewhere}.")
    return ok(name, found)


def _models(place: Place) -> Finding:
    name, found = "disk: models", _described(place)
    elsewhere = "or set HF_HUB_CACHE to another folder"
    if not place.writable:
        return warning(name, f"{found}: not writable, so nothing can be fetched", f"Fix its permissions, {elsewhere}.")
    if place.free is not None and place.free < ENOUGH_MODELS_MB:
        return warning(name, f"{found}; a model takes 1 to 16 GB", f"Free some space, {elsewhere}.")
    return ok(name, found)


def _described(place: Place) -> str:
    return f"{place.path}, {gb(place.free)} GB free" if place.free is not None else place.path


def terminal(facts: Facts) -> Iterator[Finding]:
    known = facts.terminal
    if known.size is None:
        yield ok("terminal", "none: commands print plain lines")
        return
    columns, rows = known.size
    colours = {0: "no colours", 1 << 24: "16 million colours"}.get(known.colours, f"{known.colours} colours")
    shade = ", greys only (NO_COLOR)" if known.no_colour else f", {colours}"
    found = f"{known.name or 'no TERM'}, {columns} x {rows}{shade}{'' if known.symbols else ', ASCII'}"
    if known.name in ("", "dumb"):
        yield warning("terminal", f"{found}: the app cannot be shown", "Set TERM, for example TERM=xterm-256color.")
    elif columns < LEAST_SIZE[0] or rows < LEAST_SIZE[1]:
        yield warning("terminal", f"{found}: the app needs {LEAST_SIZE[0]} x {LEAST_SIZE[1]}", "Make it larger.")
    elif not known.symbols:
        advice = "Set a UTF-8 locale (LANG=C.UTF-8), or AAPO_DESK_ASCII=0 if the terminal supports UTF-8."
        yield warning("terminal", f"{found}: the locale is not UTF-8, so charts are drawn in ASCII", advice)
    elif known.colours < 256 and not known.no_colour:
        advice = "Set TERM=xterm-256color, or COLORTERM=truecolor if the terminal supports it."
        yield warning("terminal", f"{found}: charts look better with 256 colours", advice)
    else:
        yield ok("terminal", found)


def clipboard(facts: Facts) -> Iterator[Finding]:
    known = facts.terminal
    if known.multiplexer == "tmux":
        if known.clipboard == "on":
            yield ok("clipboard", "tmux's set-clipboard is on")
        else:
            advice = "Add this to ~/.tmux.conf: set -s set-clipboard on"
            state = known.clipboard or "unknown"
            found = f"tmux's set-clipboard is {state}"
            yield warning("clipboard", f"{found}: text copied with y leaves tmux only if it is on", advice)
    elif known.multiplexer == "screen":
        yield warning("clipboard", "GNU screen does not pass on copied text", "Use tmux if you want to copy text.")


def probe(facts: Facts) -> Iterator[Finding]:
    known = facts.probe
    if known is None:
        return
    if known.error is not None:
        advice = "Check the other lines first; no training will work until this does."
        yield problem("probe", f"a tiny training step failed: {known.error}", advice)
        return
    scale = f", loss scale {known.loss_scale:g}" if known.loss_scale is not None else ""
    weights = "4-bit" if known.quantization == "nf4" else "unquantized"
    yield ok(
        "probe",
        f"a tiny training step on {known.device}, {weights} weights, {known.dtype}{scale}: {known.seconds:.1f} s, "
        f"gradient {known.grad_norm:.2g}, the adapter moved by {known.update_norm:.2g}",
    )
    for name, what in PATHS.items():
        if name not in known.paths:
            yield ok(what, "not available on this device")
        elif differs := known.paths[name]:
            yield warning(what, differs, "Runs detect this when they start and do not use it, so they are slower.")
        else:
            yield ok(what, "agrees with the plain path")


PATHS = {
    "shadow_weights": "shadow weights",
    "row_mask": "mixed batch",
    "own_update": "update's layers",
    "fixed_steps": "captured step",
    "share_prompts": "shared prompts",
}
"""The fast paths, and the name of each in the findings."""

Check = Callable[[Facts], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    system,
    memory,
    graphics.card,
    graphics.driver,
    graphics.memory,
    graphics.precision,
    graphics.torch,
    bitsandbytes,
    libraries,
    unsloth,
    hub,
    token,
    disk,
    terminal,
    clipboard,
    probe,
)


def training(facts: Facts, found: list[Finding]) -> Finding:
    """Return the verdict over all other findings: whether training can work."""
    broken = [finding.name for finding in found if finding.state == "problem"]
    if broken:
        where = "on this machine's GPU" if facts.has_gpu else "here"
        return problem("training", f"cannot work {where}: see {', '.join(broken)}")
    where = f"on {facts.torch.name or 'the GPU'}" if facts.torch and facts.on_gpu else "on the CPU"
    return ok("training", f"works {where}{'' if facts.probe else '; --probe runs a real step'}")
