"""Sampling completions from the policy and from the reference."""

from aapo_desk.rollout.decoding import Completions, Row, decode
from aapo_desk.rollout.sampling import Sampling, derive_seed, draw, uniforms

__all__ = ["Completions", "Row", "Sampling", "decode", "derive_seed", "draw", "uniforms"]
