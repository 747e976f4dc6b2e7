"""Exports of a small run: what others load, what is proved, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from aapo_desk.checkpoint import CheckpointError
from aapo_desk.evaluation.accuracy import measure
from aapo_desk.export import Form, Request, check_folder, choose
from aapo_desk.export.card import _accuracy
from aapo_desk.export.distance import BOUNDS, Bound
from aapo_desk.export.exporting import BrokenExportError, export
from aapo_desk.export.folders import describe_files, written_aside
from aapo_desk.export.loading import Answer
from aapo_desk.export.questions import Questions, held_out_accuracy
from aapo_desk.export.request import ExportError, Source
from aapo_desk.export.work import prepare, verify, write
from aapo_desk.models.policy import Policy
from aapo_desk.store import RunDirectory, list_checkpoints
from aapo_desk.tasks import Problem
from tests import run_data, scored
from tests.export.runs import all_right, names, trained_run, tuned
from tests.spoiled import put_nan
from tests.tiny_model import stop_elsewhere

IDS = torch.tensor([[5, 90, 17, 200, 33, 4]])


@pytest.fixture
def run(desk_home: Path, tiny_config: dict[str, Any]) -> RunDirectory:
    return trained_run(tiny_config)


def request(run: RunDirectory, form: Form, to: Path, step: str = "best", **more: Any) -> Request:
    return Request(choose(run, step), form, to, **more)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    found: Tensor = model.eval()(IDS).logits.float()
    return found


def expected(policy: Policy) -> Tensor:
    return logits(policy.model)


def test_an_adapter_is_loaded_by_peft_on_the_base_that_it_names(
    run: RunDirectory, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    from peft import PeftModel

    record = export(request(run, "adapter", tmp_path / "out"), all_right)

    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == tiny_config["model"]["id"]
    base = AutoModelForCausalLM.from_pretrained(settings["base_model_name_or_path"], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(tmp_path / "out"))
    torch.testing.assert_close(logits(model), expected(tuned(tiny_config, seed=1)))
    assert record["broken"] == []
    assert record["held_out"]["greedy"]["accuracy"] == 1.0
    assert record["held_out"]["run"]["accuracy"] == 0.5
    assert names(tmp_path / "out") == {"adapter_config.json", "adapter_model.safetensors", "README.md", "export.json"}
    assert names(tmp_path) & {"home", "out"} == names(tmp_path) - {"settings"}, "nothing is left beside it"


def test_unscorable_answers_are_wrong_in_the_card_and_in_the_agreement_with_the_run(tmp_path: Path) -> None:
    measured = scored.row([1.0, None, 0.0, None])
    asked = Questions([Problem(f"p{n}", "1 + 1", "2") for n in range(4)], [[1]] * 4, [], Problem("p0", "1 + 1", "2"))
    source = Source(RunDirectory(tmp_path), run_data.config(), 5, "the last", {0: scored.row([0.0] * 4), 5: measured})
    loaded: Any = SimpleNamespace(answer=lambda prompts, longest: [Answer("2", 1, True)] * len(prompts))
    found = held_out_accuracy(loaded, asked, source, lambda _: measure([1.0, 0.0, None, None]))
    assert found["greedy"]["accuracy"] == 0.25
    assert (found["run"]["accuracy"], found["run"]["unscorable"], found["run"]["same_scores"]) == (0.25, 2, 4)
    text = _accuracy({"held_out": found}, None)
    assert "| tuned model, as in training | 0.25 [0.05, 0.70]; 2 of 4 unscorable, counted as wrong |" in text


def test_a_merged_model_needs_no_peft_and_keeps_template_and_ending_token(
    run: RunDirectory, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    export(request(run, "merged", tmp_path / "out", step="last"), None)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.float16, "its base was published in float32"
    assert not hasattr(model, "peft_config")
    ours, theirs = expected(tuned(tiny_config, seed=2)).softmax(-1), logits(model.float()).softmax(-1)
    torch.testing.assert_close(theirs, ours, atol=0.02, rtol=0)
    kept, base = (AutoTokenizer.from_pretrained(path) for path in (tmp_path / "out", tiny_config["model"]["id"]))
    assert kept.chat_template == base.chat_template
    assert model.generation_config.eos_token_id == base.eos_token_id == kept.eos_token_id


def test_what_was_exported_stands_among_the_runs_exports_with_its_proof(run: RunDirectory, tmp_path: Path) -> None:
    record = export(request(run, "merged", tmp_path / "out"), None)

    (path,) = run.exports.iterdir()
    assert json.loads(path.read_text()) == record
    assert json.loads((tmp_path / "out" / "export.json").read_text())["proofs"] == record["proofs"]
    (proof,) = record["proofs"]
    assert proof["against"] == "the unquantized base plus adapter"
    assert 0 <= proof["distance"]["kl"] <= proof["bound"]["kl"] == BOUNDS["merged"].kl
    assert proof["distance"]["tokens"] > 20
    assert (record["step"], record["chosen"]) == (1, "the best by held-out accuracy")
    assert record["held_out"] is None


def test_the_drift_of_the_four_bit_policy_is_told_beside_it(
    desk_home: Path, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    run = trained_run(tiny_config | {"model": tiny_config["model"] | {"quantization": "nf4"}}, steps=(1,))
    record = export(request(run, "merged", tmp_path / "out"), None)
    merged, drift = record["proofs"]
    assert drift["what"].startswith("the 4-bit policy")
    assert drift["bound"] is None
    assert drift["distance"]["kl"] > merged["distance"]["kl"], "the merge is into the base, not into its 4 bits"


def test_a_base_that_was_published_in_bfloat16_stays_in_it(
    desk_home: Path, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "bfloat16"
    shutil.copytree(tiny_config["model"]["id"], folder)
    LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    run = trained_run(tiny_config | {"model": tiny_config["model"] | {"id": str(folder)}}, steps=(1,))
    export(request(run, "merged", tmp_path / "out"), None)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True` and a tied layer:UserWarning")
@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["q_proj"]])
def test_tied_embeddings_stay_what_they_were(
    desk_home: Path, tiny_config: dict[str, Any], tmp_path: Path, targets: list[str]
) -> None:
    folder = tmp_path / "tied"
    shutil.copytree(tiny_config["model"]["id"], folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)
    config = tiny_config | {
        "model": tiny_config["model"] | {"id": str(folder)},
        "lora": tiny_config["lora"] | {"targets": targets},
    }
    run = trained_run(config, steps=(1,))

    export(request(run, "merged", tmp_path / "out"), None)

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert merged.config.tie_word_embeddings == ("lm_head" not in targets)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(
        merged.get_input_embeddings().weight, base.get_input_embeddings().weight, atol=1e-3, rtol=0.01
    )
    torch.testing.assert_close(
        logits(merged).softmax(-1), expected(tuned(config, seed=1)).softmax(-1), atol=0.02, rtol=0
    )


def damage_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-4000:-3000] = bytes(byte ^ 0x40 for byte in data[-4000:-3000])
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def other_weights(path: Path) -> None:
    tensors = load_file(path)
    name = next(name for name in tensors if "down_proj" in name and tensors[name].any())
    save_file(tensors | {name: -tensors[name]}, path, metadata={"format": "pt"})


def other_scale(path: Path) -> None:
    settings = json.loads((path.parent / "adapter_config.json").read_text())
    (path.parent / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 1}))


@pytest.mark.parametrize(
    ("form", "damage"),
    [
        ("adapter", damage_bytes),
        ("adapter", cut),
        ("adapter", other_weights),
        ("adapter", other_scale),
        ("adapter", Path.unlink),
        ("merged", damage_bytes),
        ("merged", cut),
        ("merged", other_weights),
        ("merged", Path.unlink),
    ],
)
def test_what_is_damaged_between_writing_and_loading_is_found(
    run: RunDirectory, tmp_path: Path, form: Form, damage: Any
) -> None:
    file = {"adapter": "adapter_model.safetensors", "merged": "model.safetensors"}[form]
    with written_aside(tmp_path / "out") as places:
        work, policy = prepare(request(run, form, tmp_path / "out"), places, print)
        write(work, policy)
        assert verify(work).broken == []
        damage(places.aside / file)
        assert verify(work).broken, "by its checksums"
        work.files = describe_files(places.aside)
        assert verify(work).broken, "by what it predicts, or since it does not load"


def test_what_is_out_of_bounds_is_kept_aside_as_broken(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BOUNDS, "merged", Bound(kl=0.0, top1=1.0))
    with pytest.raises(BrokenExportError, match=r"broken, not exported: .*nats"):
        export(request(run, "merged", tmp_path / "out"), all_right)
    assert not (tmp_path / "out").exists()
    record, problems = check_folder(tmp_path / "out.broken")
    assert "already broken when it was made" in problems[0]
    assert record["held_out"] is None
    (path,) = run.exports.iterdir()
    assert path.name.endswith("-merged-broken.json")


def test_a_damaged_checkpoint_is_refused_and_nothing_is_left(run: RunDirectory, tmp_path: Path) -> None:
    damage_bytes(run.checkpoints / "step_000001" / "adapter" / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is missing or damaged"):
        export(request(run, "adapter", tmp_path / "out"), None)
    assert names(tmp_path) <= {"home", "settings"}
    export(request(run, "adapter", tmp_path / "out", step="2"), None)


def test_an_adapter_that_is_not_finite_is_not_exported(run: RunDirectory, tmp_path: Path) -> None:
    name = put_nan(next(one for one in list_checkpoints(run.checkpoints) if one.step == 1))
    with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
        export(request(run, "adapter", tmp_path / "out"), None)
    assert names(tmp_path) <= {"home", "settings"}


def test_a_full_disk_is_told_before_anything_is_written(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ExportError, match=r"has 0\.0 GiB free, but the export needs"):
        export(request(run, "merged", tmp_path / "out"), None)
    assert names(tmp_path) <= {"home", "settings"}


def test_an_export_that_was_killed_leaves_nothing_for_long(run: RunDirectory, tmp_path: Path) -> None:
    dead = tmp_path / ".out.export-4194305"  # beyond the largest process number
    dead.mkdir()
    export(request(run, "adapter", tmp_path / "out"), None)
    assert not dead.exists()


PLANS: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"steps": 5}, "Step 2 of 5: "),
    "seconds": ({"steps": 1_000_000, "seconds": 90}, "Step 2 of a run of 90 seconds: "),
    "completions": ({"steps": 1_000_000, "completions": 640}, "Step 2 of a run of 640 completions: "),
    "ended by its steps": ({"steps": 2, "seconds": 90}, "Step 2 of 2: "),
}


@pytest.mark.parametrize(("plan", "said"), PLANS.values(), ids=PLANS)
def test_the_card_says_how_much_of_the_plan_was_carried_out(
    run: RunDirectory, tmp_path: Path, plan: dict[str, Any], said: str
) -> None:
    settings = json.loads(run.config.read_text())
    settings["run"] |= plan
    settings["optimizer"]["schedule"] = "constant"
    run.config.write_text(json.dumps(settings))
    export(request(run, "adapter", tmp_path / "out", step="last"), None)
    text = (tmp_path / "out" / "README.md").read_text()
    assert said in text
    assert f"| steps | {said.removeprefix('Step ').removesuffix(': ')} |" in text


def test_the_card_holds_settings_curves_and_evaluation(run: RunDirectory, tmp_path: Path) -> None:
    export(request(run, "adapter", tmp_path / "out", step="last"), all_right)
    text = (tmp_path / "out" / "README.md").read_text()
    for piece in (
        "library_name: peft",
        "LoRA r=4, alpha=8",
        "| step | reward | entropy, in nats |",
        "| 2 | 0.200 | 1.000 |",
        "| base model, as in training | 0.10 [0.00, 0.20] |",
        "| tuned model, as in training | 0.50 [0.40, 0.60] |",
        "| this export | 1.00 [0.90, 1.00] |",
        "the adapter, loaded by peft compared with the unquantized base plus adapter",
        "PeftModel.from_pretrained",
    ):
        assert piece in text, piece


def test_others_stop_at_the_chat_templates_end_where_the_base_does_not_name_it(
    desk_home: Path, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    folder = stop_elsewhere(Path(tiny_config["model"]["id"]), tmp_path / "base")
    run = trained_run(tiny_config | {"model": tiny_config["model"] | {"id": str(folder)}}, steps=(1,))
    base = AutoTokenizer.from_pretrained(folder)
    ends = [base.eos_token_id, base.convert_tokens_to_ids("<|im_end|>")]

    merged = export(request(run, "merged", tmp_path / "merged"), None)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.generation_config.eos_token_id == ends
    assert model.config.eos_token_id == base.eos_token_id
    assert merged["base"]["ends"] == ends
    assert not any("eos_token_id" in line for lines in merged["use"].values() for line in lines)

    adapter = export(request(run, "adapter", tmp_path / "adapter"), None)
    line = f"model.generation_config.eos_token_id = {ends}"
    assert line in adapter["use"]["peft and transformers"]
    assert line in (tmp_path / "adapter" / "README.md").read_text()

    with written_aside(tmp_path / "other") as places:
        work, policy = prepare(request(run, "merged", tmp_path / "other"), places, print)
        write(work, policy)
        (places.aside / "generation_config.json").unlink()
        work.files = describe_files(places.aside)
        assert "do not name <|im_end|>, which ends a turn in its chat template" in " ".join(verify(work).broken)
