"""Sampling completions from the policy and from the reference."""

from aapo_desk.rollout.decoding import Completions, Row, can_be_fixed, decode
from aapo_desk.rollout.sampling import Sampling, derive_seed, draw, uniforms

__all__ = ["Completions", "Row", "Sampling", "can_be_fixed", "decode", "derive_seed", "draw", "uniforms"]
