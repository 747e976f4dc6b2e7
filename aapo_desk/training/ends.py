"""The tokens that end a run's completions: recorded when the run begins, reused when it is resumed.

Older versions did not stop at the chat template's end of turn. A run begun by one continues without that stop token:
with it, the remaining steps would differ from those of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable

from aapo_desk.models.ends import TEMPLATE_END
from aapo_desk.models.policy import Policy
from aapo_desk.store import RunWriter

RECORD = "eos_ids"
LEFT_OUT = (
    "the chat template ends a turn with {}, which neither the model nor its tokenizer lists as an end token; this run "
    "began without stopping there and continues that way; a new run would stop there"
)


def settle_ends(store: RunWriter, policy: Policy, warn: Callable[[str], None]) -> None:
    """Let ``policy`` use the end tokens in the run's record.

    If there is no record, record the policy's own and ``warn`` once if one of them comes only from the chat template.
    """
    kept = store.recall(RECORD)
    if kept is None:
        kept = policy.eos_ids
        if policy.template_end is not None:
            # A fork inherits steps from its parent before it has started itself.
            began = store.recall("started") is not None or store.last_step() > 0
            if began:
                kept = tuple(token for token in kept if token != policy.template_end)
            name = policy.tokenizer.convert_ids_to_tokens(policy.template_end)
            warn((LEFT_OUT if began else TEMPLATE_END).format(name))
        store.remember(RECORD, list(kept))
    use_ends(policy, kept)


def use_ends(policy: Policy, ids: list[int] | tuple[int, ...]) -> None:
    """Let completions of ``policy`` end at these tokens and no others."""
    policy.eos_ids = tuple(ids)
    if policy.template_end not in policy.eos_ids:
        policy.template_end = None
