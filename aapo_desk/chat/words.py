"""Tokens become text as they come, a character never in halves."""

from __future__ import annotations

from typing import Protocol

HALF = "\ufffd"
"""What a decoder puts for bytes that are no character, or not yet."""
LONGEST_CHARACTER = 4
"""Bytes, and so tokens at the most."""


class Decoder(Protocol):
    """What is needed of a transformers tokenizer."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...


class Words:
    """The text of one answer that is being made.

    A piece is what the newest tokens add to the text of those shortly before them: alone they would be decoded
    otherwise (a blank in front, half a character). What ends in half a character waits for the rest of it.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._tokens: list[int] = []
        self._before = 0
        """From here on tokens are decoded together with the new ones."""
        self._told = 0
        """So many tokens' text has been given."""

    def add(self, token: int) -> str:
        """The text that this token completes; "" where there is none yet."""
        self._tokens.append(token)
        text = self._text(self._tokens[self._before :])
        waits = text.endswith(HALF) and len(self._tokens) - self._told < LONGEST_CHARACTER
        told = self._text(self._tokens[self._before : self._told])
        if waits or len(text) <= len(told):
            return ""
        self._before, self._told = self._told, len(self._tokens)
        return text[len(told) :]

    def whole(self) -> str:
        """All of it so far, as the tokens are decoded together."""
        return self._text(self._tokens)

    def _text(self, tokens: list[int]) -> str:
        return self._decoder.decode(tokens, skip_special_tokens=True)
