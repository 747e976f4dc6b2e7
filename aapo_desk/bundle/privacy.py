"""What stays on the machine: tokens and the home folder's path always, prompts and completions unless asked for."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXTS = frozenset(
    {
        "answer", "answers", "completion", "completions", "example", "given", "input", "notes", "problem", "prompt",
        "read", "solution", "system_prompt", "template",
    }
)  # fmt: skip
"""Keys under which a text of the user, of their data or of a model stands, in configurations and events."""

SECRET_NAME = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTH", re.IGNORECASE)
SECRET = "(secret)"
LEAST_SECRET = 8
"""Characters; what is shorter is no token, and would be found everywhere."""
LEAST_TEXT = 4

_TOKENS = re.compile(r"\b(?:hf|api_org|ghp|gho|ghs|github_pat|glpat|sk|pk|pypi|xox[abp]|wandb)[_-][A-Za-z0-9_-]{16,}")
_ASSIGNED = re.compile(
    r"(?i)((?:authorization|bearer|token|secret|password|passwd|api[_-]?key)[\"']?\s*[:= ]\s*[\"']?(?:bearer\s+)?)"
    r"(?=\S*\d)[A-Za-z0-9_+/=.-]{16,}"
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@:]+(?::[^/\s@]*)?@")

# How a reward's failure is told (``rewards.pool``, ``rewards.custom``): the exception and what it returned may quote.
_RAISED = re.compile(r"(?<=raised )(\w+): .*?((?: \(line \d+\))?)$", re.MULTILINE)
_RETURNED = re.compile(r"(?<=returned ).*(?= \(\w+\), not a finite number)")


class Privacy:
    """Takes out of texts and JSON what is the user's own. ``texts``: prompts and completions may stay."""

    def __init__(self, texts: bool) -> None:
        self.texts = texts
        self._home = _home_pattern()
        self._secrets = _secrets()
        self._cut: set[str] = set()

    def text(self, text: str) -> str:
        """Without tokens, the home folder's path and, unless they may stay, the texts that were cut out so far."""
        if not self.texts:
            for piece in sorted(self._cut, key=len, reverse=True):
                text = text.replace(piece, "(left out)")
            text = _RETURNED.sub("(left out)", _RAISED.sub(r"\1: (left out)\2", text))
        for secret in self._secrets:
            text = text.replace(secret, SECRET)
        text = _CREDENTIALS.sub(f"{SECRET}@", _ASSIGNED.sub(rf"\1{SECRET}", _TOKENS.sub(SECRET, text)))
        return self._home.sub("~", text) if self._home else text

    def value(self, value: Any) -> Any:
        """The same in JSON, where a text is known by its key too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            # First what is cut out, so that it is known when the texts beside it are looked through.
            cut = {key: self._left_out(item) for key, item in value.items() if not self.texts and key in TEXTS}
            return {self.text(str(key)): cut[key] if key in cut else self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def _left_out(self, value: Any) -> Any:
        if isinstance(value, str):
            if len(value) >= LEAST_TEXT:
                self._cut |= {value, repr(value)[1:-1]}
            return f"(left out: {len(value)} characters)"
        if isinstance(value, list | tuple | dict):
            return f"(left out: {len(value)})"
        return value


def environment(privacy: Privacy) -> dict[str, str]:
    """The environment variables that change how a run behaves; of a secret only that it is set."""
    found = {}
    for name, value in sorted(os.environ.items()):
        if SECRET_NAME.search(name):
            if name.startswith(("HF_", "HUGGING")):
                found[name] = SECRET
        elif name.startswith(_PREFIXES) or name in _NAMES:
            found[name] = privacy.text(value)
    return found


_PREFIXES = (
    "AAPO_DESK_", "ACCELERATE_", "BNB_", "CUDA_", "CUBLAS_", "HF_", "HUGGINGFACE_", "KMP_", "LC_", "MALLOC_", "MKL_",
    "NCCL_", "NVIDIA_", "OMP_", "OPENBLAS_", "PYTORCH_", "SLURM_", "TORCH", "TRANSFORMERS_", "TRITON_", "UNSLOTH_",
)  # fmt: skip
_NAMES = frozenset(
    {
        "COLORTERM", "CONDA_PREFIX", "LANG", "LD_LIBRARY_PATH", "LD_PRELOAD", "NO_COLOR", "PYTHONHASHSEED",
        "PYTHONPATH", "RANK", "STY", "TERM", "TMPDIR", "TMUX", "TOKENIZERS_PARALLELISM", "VIRTUAL_ENV", "WORLD_SIZE",
        "WSL_DISTRO_NAME", "XDG_CACHE_HOME", "XDG_DATA_HOME",
    }
)  # fmt: skip


def _home_pattern() -> re.Pattern[str] | None:
    """The home folder's path, by any of its names, where a name ends."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    names = {str(home), str(home.resolve())} - {"/"}
    return (
        re.compile(rf"(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})(?![\w.-])")
        if names
        else None
    )


def _secrets() -> list[str]:
    """The secrets that this process knows of, the longest first."""
    from huggingface_hub import constants

    values = [value for name, value in os.environ.items() if SECRET_NAME.search(name)]
    with contextlib.suppress(OSError, ValueError):
        values.append(Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip())
    return sorted({value for value in values if len(value) >= LEAST_SECRET and "/" not in value}, key=len, reverse=True)
