"""A checkpoint that is whole and of no use."""

from __future__ import annotations

import json

from safetensors.torch import load_file, save_file

from aapo_desk.checkpoint import Checkpoint
from aapo_desk.store.checkpoints import checksum, seal


def put_nan(checkpoint: Checkpoint) -> str:
    """Put a NaN into a checkpoint's adapter, with a checksum that is right; gives the tensor's name."""
    file = checkpoint.adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    state = json.loads((checkpoint.path / "state.json").read_text())
    state["checksums"]["adapter/adapter_model.safetensors"] = checksum(file)
    (checkpoint.path / "state.json").write_text(json.dumps(state | {"seal": seal(state)}))
    return name
