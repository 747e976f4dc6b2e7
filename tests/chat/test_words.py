"""Text out of tokens as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aapo_desk.chat.words import HALF, Words


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    """Knows every byte, and a few words: other characters come in as many tokens as they have bytes."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def pieces(tokenizer: Any, tokens: list[int]) -> tuple[list[str], str]:
    words = Words(tokenizer)
    return [words.add(token) for token in tokens], words.whole()


@pytest.mark.parametrize("text", ["What is the sum?", "Grüße, 漢字 und 🎉!", "  two  blanks\n\nand lines\n", "é", "🎉"])
def test_pieces_are_whole_characters_and_make_up_the_text(tokenizer: Any, text: str) -> None:
    given, whole = pieces(tokenizer, tokenizer.encode(text))
    assert not any(HALF in piece for piece in given)
    assert "".join(given) == whole == text


def test_text_comes_with_the_token_that_completes_it(tokenizer: Any) -> None:
    tokens = tokenizer.encode("aé")
    assert len(tokens) == 3
    assert pieces(tokenizer, tokens)[0] == ["a", "", "é"]


def test_special_tokens_are_not_text(tokenizer: Any) -> None:
    given, whole = pieces(tokenizer, [*tokenizer.encode("sum"), tokenizer.eos_token_id])
    assert "".join(given) == whole == "sum"


def test_bytes_that_never_become_a_character_do_not_hold_the_rest_back(tokenizer: Any) -> None:
    stray = tokenizer.encode("é")[1]  # the second half of a character, alone
    given, whole = pieces(tokenizer, [stray] * 6 + tokenizer.encode("sum"))
    assert "".join(given[:5])
    assert "".join(given).endswith("sum")
    assert whole == HALF * 6 + "sum"
