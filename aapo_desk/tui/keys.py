"""The actions of a screen and their keys, as listed by both help and the command palette."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from textual.binding import Binding
from textual.dom import DOMNode

MOVES = ("cursor_", "page_", "scroll_")
"""Prefixes of the actions that move in a list; they are listed last, since everybody tries these keys anyway."""
OF_EVERY_APP = frozenset({"Focus Next", "Focus Previous", "Copy selected text"})


@dataclass
class Offer:
    """An action with its title, its description, the widget it belongs to, and its key bindings."""

    action: str
    title: str
    text: str
    node: DOMNode | None = None
    keys: list[Binding] = field(default_factory=list)


def offers(bindings: Iterable[tuple[DOMNode | None, Binding]]) -> list[Offer]:
    """Return the actions of the bindings, each once and in order, with those that move in a list last.

    Actions that every Textual app has are left out.
    """
    found: dict[str, Offer] = {}
    for node, binding in bindings:
        if not binding.description or binding.system or binding.description in OF_EVERY_APP:
            continue
        text = binding.tooltip or binding.description
        found.setdefault(binding.action, Offer(binding.action, binding.description, text, node)).keys.append(binding)
    return sorted(found.values(), key=lambda offer: offer.action.rpartition(".")[2].startswith(MOVES))
