"""The files that a run reads and leaves: no pickle from any file, nobody else's eyes, no ear on the network."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aapo_desk
from aapo_desk.config import resolve
from aapo_desk.launch.child import environment
from aapo_desk.store import create_run

PACKAGE = Path(aapo_desk.__file__).parent

LOADERS = frozenset(
    {
        "pickle", "_pickle", "cPickle", "pickletools", "dill", "cloudpickle", "joblib", "marshal", "shelve",
        "multiprocessing", "multiprocess", "torch.multiprocessing", "torch.package", "concurrent.futures.process",
    }
)  # fmt: skip
"""Modules that unpickle what they are given, or what comes through their queues and pipes."""

CALLS = frozenset(
    {
        "load_peft_weights", "read_pickle", "ProcessPoolExecutor", "gather_object", "all_gather_object",
        "broadcast_object_list", "scatter_object_list", "recv_object_list", "load_state_dict_from_url", "unsafe_load",
        "full_load",
    }
)  # fmt: skip
"""Functions of any module that do so."""

MODULE_CALLS = frozenset({"torch.load", "torch.save", "numpy.load", "np.load", "yaml.load", "pandas.read_pickle"})


def unpickling(source: str) -> Iterator[str]:
    """Return what in a module's source could read a pickle."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in MODULE_CALLS or called.rpartition(".")[2] in CALLS:
                yield called
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                if (keyword.arg, value) in {("allow_pickle", "True"), ("weights_only", "False")}:
                    yield f"{keyword.arg}={value}"
                if keyword.arg == "use_safetensors" and value != "True":
                    yield f"use_safetensors={value}"
            is_model = called.startswith("AutoModel") and called.endswith("from_pretrained")
            if is_model and not {"use_safetensors", "gguf_file"} & {keyword.arg for keyword in node.keywords}:
                yield f"{called} without use_safetensors=True"
        yield from (
            name for name in names if any(name == loader or name.startswith(f"{loader}.") for loader in LOADERS)
        )
        yield from (name for name in names if name in MODULE_CALLS or name.rpartition(".")[2] in CALLS)


def test_no_module_of_the_package_can_unpickle_a_file() -> None:
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 150
    found = {str(path.relative_to(PACKAGE)): list(unpickling(path.read_text())) for path in modules}
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch.multiprocessing as mp",
        "from multiprocessing import Queue",
        "from concurrent.futures import ProcessPoolExecutor",
        "torch.load(path, weights_only=True)",
        "from torch import load",
        "np.load(path)",
        "anything(path, allow_pickle=True)",
        "AutoModelForCausalLM.from_pretrained(path)",
        "AutoModelForCausalLM.from_pretrained(path, use_safetensors=None)",
        "torch.distributed.gather_object(thing)",
        "yaml.load(text, Loader=yaml.Loader)",
    ],
)
def test_a_module_that_could_would_be_found(source: str) -> None:
    assert list(unpickling(source))


# In every Python process that is started with it: what it unpickles by name, binds and connects to goes into a file.
WITNESS = """
import os, sys

def hook(event, arguments, _file=os.environ["WITNESS"]):
    if event in ("pickle.find_class", "socket.bind", "socket.connect"):
        with open(_file, "a") as file:
            file.write(f"{event} {arguments!r}\\n")

sys.addaudithook(hook)
"""

LIFE = """
import os, shutil, sys, threading
import psutil

run, kept = sys.argv[1:]
listening, over = [], threading.Event()

def listen():
    me = psutil.Process()
    while not over.wait(0.1):
        for process in [me, *me.children(recursive=True)]:
            try:
                listening.extend(c for c in process.net_connections() if c.status == psutil.CONN_LISTEN)
            except psutil.Error:
                pass

os.umask(0o022)
thread = threading.Thread(target=listen)
thread.start()
import torch
loads = []
torch.load = lambda *given, **named: loads.append(given)
from aapo_desk.training.__main__ import main
assert main([run]) == 0
shutil.rmtree(f"{run}/checkpoints/step_000002")
assert main([run]) == 0
from aapo_desk.cli.app import run as command
assert command(["runs", "show", "last"]) == 0
assert command(["eval", "last", "--problems", "2"]) == 0
assert command(["export", "last", "--format", "adapter", "--to", kept, "--no-eval"]) == 0
over.set()
thread.join()
assert not listening, listening
assert not loads, loads
with open(os.environ["WITNESS"], "a") as file:
    file.write("the end\\n")
import collections, pickle
pickle.loads(pickle.dumps(collections.Counter))
"""


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, list[str]]:
    """A run that was trained, resumed, shown, evaluated and exported under the eyes of a witness: its folder, and what
    the witness saw."""
    folder = tmp_path_factory.mktemp("life")
    (folder / "witness").mkdir()
    (folder / "witness" / "sitecustomize.py").write_text(WITNESS)
    seen = folder / "seen"
    seen.touch()
    variables = environment() | {"WITNESS": str(seen), "AAPO_DESK_OFFLINE": "1"}
    variables["PYTHONPATH"] = f"{folder / 'witness'}{os.pathsep}{variables.get('PYTHONPATH', '')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AAPO_DESK_HOME", str(folder / "home"))
        run = create_run(resolve(configuration(tiny_model)))
        variables["AAPO_DESK_HOME"] = str(folder / "home")
        arguments = [sys.executable, "-P", "-c", LIFE, str(run.path), str(folder / "kept")]
        done = subprocess.run(arguments, env=variables, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return run.path, seen.read_text().splitlines()


def configuration(model: Path) -> dict[str, Any]:
    return {
        "model": {"id": str(model), "device": "cpu", "quantization": "nf4"},
        "lora": {"r": 4, "alpha": 8},
        "task": {"source": "arithmetic", "held_out": 2, "max_prompt_tokens": 200},
        "rewards": [{"name": "format", "options": {"pattern": "[a-m]"}}],
        "rollout": {"prompts_per_step": 1, "group_size": 2, "max_new_tokens": 2},
        "run": {"steps": 2, "checkpoint_every": 1},
        "evaluation": {"problems": 2},
    }


@pytest.mark.slow
def test_nothing_is_unpickled_while_a_run_lives(life: tuple[Path, list[str]]) -> None:
    _, seen = life
    assert seen[-2] == "the end"
    assert seen[-1].startswith("pickle.find_class ('collections', 'Counter')"), "the witness sees a pickle"
    assert [line for line in seen[:-2] if line.startswith("pickle")] == []


@pytest.mark.slow
def test_no_process_of_a_run_binds_a_port_or_connects_anywhere(life: tuple[Path, list[str]]) -> None:
    _, seen = life
    assert [line for line in seen if line.startswith("socket")] == []


@pytest.mark.slow
def test_every_file_that_a_run_leaves_is_private_to_the_user(life: tuple[Path, list[str]]) -> None:
    run, _ = life
    left = {path: path.stat().st_mode & 0o777 for path in [run, *run.rglob("*")]}
    names = {path.name for path in left}
    assert {"run.db", "run.lock", "config.json", "status.json", "state.json", "adapter_config.json"} <= names
    assert {"results.jsonl", "evaluation.json"} <= names
    assert any(path.parent.name == "exports" for path in left)
    assert {path: oct(mode) for path, mode in left.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
