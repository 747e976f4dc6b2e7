"""AAPO Desk: reinforcement fine-tuning of small language models on one device, watched in the terminal."""

__version__ = "0.1.0"
