"""The registry of algorithms: the options of each, and the facts that validation needs before anything heavy loads.

To add an algorithm, write its file in ``aapo_desk.algorithms`` and add a line to ``METHODS``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A numeric option of at least ``least``. If ``default`` is None, the algorithm's file determines the value."""

    default: float | None
    least: float = 0
    more: bool = False
    """True if the value must be strictly greater than ``least``."""
    whole: bool = False

    @property
    def allowed(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} {'above' if self.more else 'of at least'} {self.least:g}"

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.default is None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return (value > self.least if self.more else value >= self.least) and (not self.whole or value == int(value))


@dataclass(frozen=True)
class Choice:
    """An option that takes one of ``words``. The first is the default."""

    words: tuple[str, ...]

    @property
    def default(self) -> str:
        return self.words[0]

    @property
    def allowed(self) -> str:
        return " or ".join(self.words)

    def accepts(self, value: Any) -> bool:
        return value in self.words


@dataclass(frozen=True)
class Switch:
    """A boolean option."""

    default: bool
    allowed = "true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)


Option = Number | Choice | Switch
Options = Mapping[str, Any]


def _always(_: Options) -> bool:
    return True


def _never(_: Options) -> bool:
    return False


@dataclass(frozen=True)
class Method:
    """The description of an algorithm that validation uses before the algorithm is built."""

    options: Mapping[str, Option]
    settings: tuple[str, ...] = ()
    """The settings of ``algorithm`` that the algorithm uses, besides ``name``, ``options``, ``updates_per_rollout``."""
    scales: bool = False
    """The default of ``scale_rewards``, as in the authors' implementation."""
    reuses: Callable[[Options], bool] = _always
    """True if a rollout may be used for several updates, given the complete options."""
    labels: bool = False
    """True if the rewards must be exactly 0 or 1."""

    @property
    def has_margin(self) -> bool:
        """True if the algorithm needs the rewards of the reference model."""
        return "reference" in self.settings

    def complete(self, options: Options) -> dict[str, Any]:
        """Return ``options`` with the default of every option that is missing."""
        return {key: options.get(key, option.default) for key, option in self.options.items()}


_MARGIN = ("margin_low", "margin_high", "reference", "aggregation", "pairing")
_SCALED = ("scale_rewards",)
_BETA: Mapping[str, Option] = {"beta": Number(0.0)}
_CLIP: Mapping[str, Option] = {"epsilon_low": Number(0.2), "epsilon_high": Number(0.2)}
_DAPO: Mapping[str, Option] = {
    "epsilon_low": Number(0.2),
    "epsilon_high": Number(0.28),
    "filter_constant": Switch(True),
    "max_refills": Number(3, whole=True),
}
_DISCO: Mapping[str, Option] = {
    "score": Choice(("logl", "lratio")),
    "soft_maximum": Switch(True),
    "tau": Number(None, more=True),
    "beta": Number(1000.0),
    "delta": Number(1e-4),
    "kl": Choice(("kl", "low_var_kl")),
}
_LOOP: Mapping[str, Option] = {
    "epsilon": Number(0.1),
    "ratio": Choice(("token", "trajectory")),
    "loss_div_factor": Number(None, more=True),
}
_P3O: Mapping[str, Option] = {
    "variant": Choice(("v2", "v1")),
    "beta": Number(0.05),
    "cliprange": Number(0.2),
    "cliprange_ratio": Number(10.0, least=1),
    "pairs": Choice(("all", "adjacent")),
}


def _by_sequence(options: Options) -> bool:
    return bool(options["variant"] == "ppo_seq")


METHODS: Mapping[str, Method] = {
    "aapo": Method({}, (*_MARGIN, *_SCALED), scales=True, reuses=_never),
    "grpo": Method({**_CLIP, **_BETA}, _SCALED, scales=True),
    "dr_grpo": Method({**_CLIP, **_BETA}),
    "dapo": Method(_DAPO, _SCALED, scales=True),
    "gpg": Method({**_BETA, "adjust": Switch(True)}, _SCALED, reuses=_never),
    "rloo": Method({"variant": Choice(("reinforce", "ppo_seq")), **_CLIP, **_BETA}, reuses=_by_sequence),
    "loop": Method(_LOOP, _SCALED),
    "disco": Method(_DISCO, labels=True),
    "p3o": Method(_P3O),
    "apa": Method({"alpha": Number(0.5)}, _SCALED, scales=True),
}

REFERENCE_ALGORITHMS = tuple(name for name, method in METHODS.items() if method.has_margin)
"""The algorithms that need the rewards of the reference model."""


def wrong_options(name: str, options: Options) -> str:
    """Return a message that says what is wrong with an algorithm's own options, or "" if they are valid."""
    known = METHODS[name].options
    for key, value in options.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"; did you mean algorithm.options.{close[0]}?" if close else ""
            return f"{name} has no option {key!r}; available: {', '.join(known) or 'none'}{hint}"
        if not known[key].accepts(value):
            return f"option {key} = {value!r}: must be {known[key].allowed}"
    return ""


def wrong_updates(name: str, options: Options, updates: int) -> str:
    """Return a message that says why a rollout cannot be used for ``updates`` updates, or "" if it can."""
    method = METHODS[name]
    if updates == 1 or method.reuses(method.complete(options)):
        return ""
    without = (
        f"{name} has no ratio that corrects for the sampling policy, so each rollout can be used for one update only"
    )
    other = "; algorithm.options.variant=ppo_seq has such a ratio" if "variant" in method.options else ""
    return f"updates_per_rollout = {updates}: {without}{other}"


def misplaced(name: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Return, by key of ``algorithm``, why a value that differs from its default has no effect on this algorithm."""
    method = METHODS[name]
    wrong = {}
    for key in (*_MARGIN, *_SCALED):
        default = method.scales if key in _SCALED else defaults[key]
        if key in method.settings or values[key] == default:
            continue
        if key in _SCALED:
            wrong[key] = f"{name} never divides by the group's standard deviation; remove this setting"
        else:
            wrong[key] = f"{name} has no margin, so this setting has no effect; remove it, or set algorithm.name=aapo"
    if method.has_margin and values["pairing"] != "index" and values["margin_low"] == values["margin_high"]:
        wrong["pairing"] = "has no effect, because margin_low and margin_high are equal; use pairing=index"
    return wrong


def carried_over(old: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of a preset's ``algorithm`` section that remain if another algorithm replaces the preset's.

    A comparison of algorithms then changes only ``algorithm.name``: the settings that only the preset's algorithm uses
    are removed, and so are those that equal its defaults.
    """
    if name not in METHODS or old.get("name", defaults["name"]) not in METHODS:
        return dict(old)
    before, method = METHODS[old.get("name", defaults["name"])], METHODS[name]
    usual = {**defaults, "scale_rewards": before.scales}
    apart = {*_MARGIN, *_SCALED}
    return {
        key: value
        for key, value in old.items()
        if key != "options" and (key not in apart or (key in method.settings and value != usual[key]))
    }
