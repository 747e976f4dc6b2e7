"""The tokens that end a completion: those that the model and its tokenizer name, and the chat template's end of turn.

Base models often come with a chat template whose end-of-turn token is not named in any of their files: Qwen2.5-Math's
configuration and tokenizer name ``<|endoftext|>``, but its template ends a turn with ``<|im_end|>``. If only the named
tokens ended a completion, an answer that ends with the template's token would still run to the maximum length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aapo_desk.config import ModelConfig
from aapo_desk.models.sources import ModelError, ResolvedModel, load_config, load_tokenizer

TEMPLATE_END = (
    "the chat template ends a turn with {}, which neither the model nor its tokenizer names as an end token; answers "
    "stop there too"
)

QUESTION, ANSWER, AGAIN = "markquestion", "markanswer", "markagain"
TEMPLATE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""The errors, besides jinja2's own, that a template can raise on a conversation that it is not written for."""


@dataclass(frozen=True)
class Ends:
    """The tokens that end a completion."""

    ids: tuple[int, ...]
    """All end tokens, at least one; those that the model or its tokenizer names come first."""
    template: int | None
    """The one of them that only the chat template writes; None if there is no such token."""


def find_ends(generation_config: Any, config: Any, tokenizer: Any, template_options: Mapping[str, Any]) -> Ends:
    """Return every token that ends a completion of a model with these transformers objects.

    Raises ModelError if there is none, since no completion would ever end.
    """
    named: dict[int, None] = {}
    for source in (generation_config, config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        named |= dict.fromkeys(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    end = template_end(tokenizer, template_options)
    added = None if end in named else end
    if not named and added is None:
        raise ModelError(
            "the model names no token that ends a text: set eos_token_id in its config.json, or choose another model"
        )
    return Ends((*named, *([] if added is None else [added])), added)


def read_ends(model: ModelConfig, resolved: ResolvedModel) -> Ends:
    """Find the end tokens from a model's files, without its weights.

    Raises ModelError as ``find_ends`` does, and if the files cannot be read.
    """
    from transformers import GenerationConfig

    config = load_config(resolved, model.trust_remote_code)
    try:
        generation_config = GenerationConfig.from_pretrained(resolved.path)
    except (OSError, ValueError):  # the file is optional; transformers then uses the configuration
        generation_config = None
    tokenizer = load_tokenizer(resolved, model.trust_remote_code)
    return find_ends(generation_config, config, tokenizer, model.chat_template_options)


def end_token(tokenizer: Any, eos_ids: Sequence[int], template_options: Mapping[str, Any]) -> int:
    """Return the one of ``eos_ids`` that ends an assistant's turn: the chat template's, else the tokenizer's, else the
    first. They can differ: Gemma's template writes ``<end_of_turn>``, its tokenizer names ``<eos>``."""
    preferred = (template_end(tokenizer, template_options), getattr(tokenizer, "eos_token_id", None))
    return next((token for token in preferred if token is not None and token in eos_ids), eos_ids[0])


def template_end(tokenizer: Any, template_options: Mapping[str, Any]) -> int | None:
    """Return the token with which the chat template ends an assistant's turn.

    It is the first token after the answer of a rendered conversation, white space aside, if it is one of the
    tokenizer's added tokens and not the beginning of another turn. A template may end only the last turn with it, or
    only turns that another one follows, so two conversations are rendered. None if there is no chat template, if it
    ends a turn with plain text or with nothing, or if it refuses both conversations.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    texts = _Texts(tokenizer)
    question, answer, again = (
        {"role": role, "content": text} for role, text in (("user", QUESTION), ("assistant", ANSWER), ("user", AGAIN))
    )
    alone = _render(tokenizer, [question, answer], template_options)
    followed = _render(tokenizer, [question, answer, again], template_options).rpartition(AGAIN)[0]
    before = (alone if ANSWER in alone else followed).rpartition(ANSWER)[0]
    opening, _, header = before.rpartition(QUESTION)
    opening = opening.lstrip().removeprefix(tokenizer.bos_token or "")
    last, between = (
        texts.first_added(text.rpartition(ANSWER)[2]) if ANSWER in text else None for text in (alone, followed)
    )
    # A token that begins turns does not end them: it may follow an answer as the beginning of the next turn.
    begins = {tokenizer.bos_token_id, texts.first_added(opening), texts.last_added(opening)}
    if last is not None and last == texts.last_added(header) and last != between:
        begins.add(last)
    return next((token for token in (last, between) if token is not None and token not in begins), None)


def _render(tokenizer: Any, conversation: Sequence[Mapping[str, str]], template_options: Mapping[str, Any]) -> str:
    """Return the conversation's text up to the end of its last turn; empty if the template refuses it."""
    from jinja2 import TemplateError

    options = {
        **template_options,
        "add_generation_prompt": False,
        "continue_final_message": False,
        "tokenize": False,
        "return_dict": False,
    }
    try:
        return str(tokenizer.apply_chat_template(list(conversation), **options))
    except (TemplateError, *TEMPLATE_ERRORS):
        return ""


class _Texts:
    """Finds the tokenizer's added tokens in pieces of a rendered conversation.

    Added tokens are not always flagged as special, and some represent white space (Gemma has some for several
    newlines). The latter do not end a turn and are ignored.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        self._added = {token: str(found) for token, found in added.items() if str(found).strip()}

    def first_added(self, text: str) -> int | None:
        """Return the added token that the text begins with, white space aside; None if it begins with another one."""
        text = text.lstrip()
        token = next((token for token in self._encode(text) if self._tokenizer.decode([token]).strip()), None)
        # Compare the text too, because an unknown word is also encoded as an added token.
        return token if token in self._added and text.startswith(self._added[token]) else None

    def last_added(self, text: str) -> int | None:
        """Return the last added token in the text; None if there is none."""
        return next((token for token in reversed(self._encode(text)) if token in self._added), None)

    def _encode(self, text: str) -> list[int]:
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=False)]
