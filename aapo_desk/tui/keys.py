"""What the keys of a screen do: the one list that help and the command palette are made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from textual.binding import Binding
from textual.dom import DOMNode

MOVES = ("cursor_", "page_", "scroll_")
"""How the actions of a list's own keys begin, which everybody tries anyway."""
OF_EVERY_APP = frozenset({"Focus Next", "Focus Previous", "Copy selected text"})


@dataclass
class Offer:
    """An action: what it is called, what it does, whose it is, and by which keys."""

    action: str
    title: str
    text: str
    node: DOMNode | None = None
    keys: list[Binding] = field(default_factory=list)


def offers(bindings: Iterable[tuple[DOMNode | None, Binding]]) -> list[Offer]:
    """The actions behind bindings, each once, in their order, what moves in a list last; without those that every
    Textual app has.
    """
    found: dict[str, Offer] = {}
    for node, binding in bindings:
        if not binding.description or binding.system or binding.description in OF_EVERY_APP:
            continue
        text = binding.tooltip or binding.description
        found.setdefault(binding.action, Offer(binding.action, binding.description, text, node)).keys.append(binding)
    return sorted(found.values(), key=lambda offer: offer.action.rpartition(".")[2].startswith(MOVES))
