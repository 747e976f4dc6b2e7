"""Turn tokens into text as they arrive, never splitting a character."""

from __future__ import annotations

from typing import Protocol

HALF = "\ufffd"
"""The character that a decoder writes for bytes that are not a character, or not a complete one yet."""
LONGEST_CHARACTER = 4
"""The most bytes of a character, and so the most tokens that it can be split into."""


class Decoder(Protocol):
    """The part of a transformers tokenizer that is used here."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...


class Words:
    """The text of one answer while it is being generated.

    A piece of text is what the newest tokens add to the text of the tokens just before them, since alone they would be
    decoded differently (a leading blank, half a character). A piece that ends in half a character waits for the rest.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._tokens: list[int] = []
        self._before = 0
        """The index from which earlier tokens are decoded together with the new ones."""
        self._told = 0
        """The number of tokens whose text has been returned."""

    def add(self, token: int) -> str:
        """Add a token, and return the text that it completes; "" if there is none yet."""
        self._tokens.append(token)
        text = self._text(self._tokens[self._before :])
        waits = text.endswith(HALF) and len(self._tokens) - self._told < LONGEST_CHARACTER
        told = self._text(self._tokens[self._before : self._told])
        if waits or len(text) <= len(told):
            return ""
        self._before, self._told = self._told, len(self._tokens)
        return text[len(told) :]

    def whole(self) -> str:
        """Return the whole text so far, with all tokens decoded together."""
        return self._text(self._tokens)

    def _text(self, tokens: list[int]) -> str:
        return self._decoder.decode(tokens, skip_special_tokens=True)
