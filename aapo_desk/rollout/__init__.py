"""Rollout: sample completions from the policy and from the reference, and score them."""

from aapo_desk.rollout.bank import Bank
from aapo_desk.rollout.captured import CaptureError
from aapo_desk.rollout.decoding import Completions, NewTokens, Row, can_be_fixed, decode, ends, stream
from aapo_desk.rollout.reference import BANKED, BankedReference, Lookup
from aapo_desk.rollout.sampling import Sampling, derive_seed, draw, uniforms
from aapo_desk.rollout.scoring import Drawn, Scored, Side, Sides, score

__all__ = [
    "BANKED",
    "Bank",
    "BankedReference",
    "CaptureError",
    "Completions",
    "Drawn",
    "Lookup",
    "NewTokens",
    "Row",
    "Sampling",
    "Scored",
    "Side",
    "Sides",
    "can_be_fixed",
    "decode",
    "derive_seed",
    "draw",
    "ends",
    "score",
    "stream",
    "uniforms",
]
