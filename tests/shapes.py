"""A real model's numbers and a real card, for what is told without torch."""

from __future__ import annotations

from aapo_desk.hardware import Gpu

SMOLLM2_135M = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}
RTX_4060 = Gpu("NVIDIA GeForce RTX 4060", 8188, 612, 1, 40, 20.0, (8, 9))
