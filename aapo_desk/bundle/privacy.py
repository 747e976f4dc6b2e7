"""Removing private data: always tokens and the home folder's path; prompts and completions unless requested."""

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
"""Keys, in configurations and events, whose values are texts of the user, of their data or of a model."""

SECRET_NAME = re.compile(r"TOKEN(?!IZ)|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|AUTH", re.IGNORECASE)
SECRET = "(secret)"
LEAST_SECRET = 8
"""Minimum characters of a secret; a shorter value is not a token, and would match everywhere."""
LEAST_TEXT = 4

_TOKENS = re.compile(r"\b(?:hf|api_org|ghp|gho|ghs|github_pat|glpat|sk|pk|pypi|xox[abp]|wandb)[_-][A-Za-z0-9_-]{16,}")
_ASSIGNED = re.compile(
    r"(?i)((?:authorization|bearer|token|secret|password|passwd|api[_-]?key)[\"']?\s*[:= ]\s*[\"']?(?:bearer\s+)?)"
    r"(?=\S*\d)[A-Za-z0-9_+/=.-]{16,}"
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@:]+(?::[^/\s@]*)?@")

# Messages of failing rewards (``rewards.pool``, ``rewards.custom``): the exception and the returned value may contain
# quotes of private texts.
_RAISED = re.compile(r"(?<=raised )(\w+): .*?((?: \(line \d+\))?)$", re.MULTILINE)
_RETURNED = re.compile(r"(?<=returned ).*(?= \(\w+\), not a finite number)")


class Privacy:
    """A filter that removes private data from texts and JSON. ``texts``: whether prompts and completions may stay."""

    def __init__(self, texts: bool) -> None:
        self.texts = texts
        self._home = _home_pattern()
        self._secrets = _secrets()
        self._cut: set[str] = set()

    def text(self, text: str) -> str:
        """Return a text without tokens and the home folder's path and, unless ``texts``, without texts cut so far."""
        if not self.texts:
            for piece in sorted(self._cut, key=len, reverse=True):
                text = text.replace(piece, "(left out)")
            text = _RETURNED.sub("(left out)", _RAISED.sub(r"\1: (left out)\2", text))
        for secret in self._secrets:
            text = text.replace(secret, SECRET)
        text = _CREDENTIALS.sub(f"{SECRET}@", _ASSIGNED.sub(rf"\1{SECRET}", _TOKENS.sub(SECRET, text)))
        return self._home.sub("~", text) if self._home else text

    def value(self, value: Any) -> Any:
        """Return a JSON value filtered like ``text``, where keys in ``TEXTS`` also mark texts to cut."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            # Cut these values first, so that they are known when the other values are filtered.
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
    """Return the environment variables that affect a run; for a secret only that it is set."""
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
    """Return a pattern for the home folder's path, by any of its names, up to the end of a file name."""
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
    """Return the secrets that this process has access to, longest first."""
    from huggingface_hub import constants

    values = [value for name, value in os.environ.items() if SECRET_NAME.search(name)]
    with contextlib.suppress(OSError, ValueError):
        values.append(Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip())
    return sorted({value for value in values if len(value) >= LEAST_SECRET and "/" not in value}, key=len, reverse=True)
