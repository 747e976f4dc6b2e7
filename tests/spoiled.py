"""A checkpoint that is whole and of no use."""

from __future__ import annotations

import json

from safetensors.torch import load_file, save_file

from aapo_desk.checkpoint import Checkpoint
from aapo_desk.store.checkpoints import checksum, seal


def put_nan(checkpoint: Checkpoint, where: str = "adapter/adapter_model.safetensors") -> str:
    """Put a NaN into a file of a checkpoint, with a checksum that is right; gives the tensor's name."""
    file = checkpoint.path / where
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    state = json.loads((checkpoint.path / "state.json").read_text())
    state["checksums"][where] = checksum(file)
    (checkpoint.path / "state.json").write_text(json.dumps(state | {"seal": seal(state)}))
    return name
