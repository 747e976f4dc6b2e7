"""The algorithms by name: what each lets be set, and what a configuration must know of it before anything heavy loads.

A new one is its file in ``aapo_desk.algorithms`` and its line in ``METHODS``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """An option that is a number of at least ``least``. ``default`` None: the algorithm's file says what it is then."""

    default: float | None
    least: float = 0
    more: bool = False
    """Whether it must be more than ``least``."""
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
    """An option that is one of these words; the first is the default."""

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
    """An option that is on or off."""

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
    """An algorithm before it is built."""

    options: Mapping[str, Option]
    settings: tuple[str, ...] = ()
    """The settings of ``algorithm`` that mean something to it, beside its name, its options and its updates."""
    scales: bool = False
    """The default of ``scale_rewards``: what its authors do."""
    reuses: Callable[[Options], bool] = _always
    """Whether a rollout may serve several updates, with all its options given."""
    labels: bool = False
    """Whether its rewards must be exactly 0 or 1."""

    @property
    def has_margin(self) -> bool:
        """Whether it needs the reference's rewards."""
        return "reference" in self.settings

    def complete(self, options: Options) -> dict[str, Any]:
        """These options, and the defaults of the others."""
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
"""Those that need the reference's rewards."""


def wrong_options(name: str, options: Options) -> str:
    """What is wrong with an algorithm's own options, in words; empty where nothing is."""
    known = METHODS[name].options
    for key, value in options.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"; did you mean algorithm.options.{close[0]}?" if close else ""
            return f"{name} has no option {key!r}; it has: {', '.join(known) or 'none'}{hint}"
        if not known[key].accepts(value):
            return f"option {key} = {value!r}: must be {known[key].allowed}"
    return ""


def wrong_updates(name: str, options: Options, updates: int) -> str:
    """Why a rollout of this algorithm cannot serve so many updates, in words; empty where it can."""
    method = METHODS[name]
    if updates == 1 or method.reuses(method.complete(options)):
        return ""
    without = (
        f"{name} has no ratio that corrects for the policy that sampled, so each rollout serves exactly one update"
    )
    other = "; variant: ppo_seq has one" if "variant" in method.options else ""
    return f"updates_per_rollout = {updates}: {without}{other}"


def misplaced(name: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """By the key of ``algorithm``: why a value other than its default means nothing to this algorithm."""
    method = METHODS[name]
    wrong = {}
    for key in (*_MARGIN, *_SCALED):
        default = method.scales if key in _SCALED else defaults[key]
        if key in method.settings or values[key] == default:
            continue
        if key in _SCALED:
            wrong[key] = f"{name} never divides by the group's deviation; leave it out"
        else:
            wrong[key] = f"{name} has no margin, so this means nothing to it; leave it out, or set algorithm.name=aapo"
    if method.has_margin and values["pairing"] != "index" and values["margin_low"] == values["margin_high"]:
        wrong["pairing"] = "margin_low and margin_high are equal, so there is no margin that pairing could change"
    return wrong


def carried_over(old: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What of a preset's ``algorithm`` stays where another algorithm takes the place of the preset's.

    So a comparison changes one line: what only the preset's algorithm has is left out, and so is what it would have
    had anyway.
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
