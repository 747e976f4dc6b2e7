"""Inputs that are tried: pieces of what belongs there, in places where they do not belong, beside plain noise."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from aapo_desk.config import METHODS, field_paths
from aapo_desk.presets import list_presets
from tests.adversarial import FAMILIES

PATHS = sorted(field_paths())
WORDS = [
    *(part for path in PATHS for part in path.split(".")),
    *METHODS,
    *("arithmetic", "countdown", "auto", "none", "nf4", "math", "cpu", "cuda", "fresh", "bank", "last", "-1", "1e999"),
]
COMMANDS = [
    *("runs", "runs list", "runs show", "runs rm", "runs export", "presets", "presets list", "presets show"),
    *("presets check", "fit", "rewards try", "data show", "compare", "pause", "stop", "checkpoint", "fork", "export"),
    *("eval", "resume", "chat", "watch", "nonsense", ""),
]
"""All that start nothing where their RUN, MODEL or FILE does not exist."""
OPTIONS = [
    *("--json", "--set", "--name", "--steps", "--step", "--vram", "--to", "--format", "--plot", "--task", "--help"),
    *("--by", "--ended", "--offline", "--read-only", "--", "-h", "--bundle", "--with-texts", "--yes", "--baseline"),
]

texts = st.text(max_size=40)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.sampled_from(WORDS), st.integers(-2, 20)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)
overrides = st.dictionaries(st.sampled_from(PATHS) | texts, values, max_size=5)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """A configuration with some of its values replaced."""
    tree: dict[str, Any] = {"model": {"id": "owner/model"}, "task": {"source": "arithmetic"}}
    for path in draw(st.lists(st.sampled_from(PATHS), max_size=6)):
        section, _, key = path.rpartition(".")
        holder = tree.setdefault(section, {}) if section else tree
        if isinstance(holder, dict):
            holder[key] = draw(values)
    if draw(st.booleans()):
        tree[draw(texts | st.sampled_from(["model", "rewards", "task"]))] = draw(values)
    return tree


settings_given = st.lists(
    st.builds(lambda path, value: f"{path}={value}", st.sampled_from(PATHS) | texts, texts | st.sampled_from(WORDS))
    | texts,
    max_size=4,
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """``whole`` cut off, with bytes replaced or with noise put in."""
    how = draw(st.sampled_from(["cut", "replace", "insert", "other"]))
    if how == "other":
        return draw(st.binary(max_size=200))
    place = draw(st.integers(0, len(whole)))
    noise = draw(st.binary(min_size=1, max_size=12))
    after = {"cut": b"", "replace": whole[place + len(noise) :], "insert": whole[place:]}[how]
    return whole[:place] + (b"" if how == "cut" else noise) + after


def preset_files() -> st.SearchStrategy[bytes]:
    shipped = [preset.path.read_bytes() for preset in list_presets()[:6]]
    return st.sampled_from(shipped).flatmap(damaged) | texts.map(str.encode)


words = st.sampled_from(OPTIONS) | st.sampled_from(WORDS) | texts | st.sampled_from([f"{path}=1" for path in PATHS])
command_lines = st.builds(
    lambda command, rest: [*command.split(), *rest], st.sampled_from(COMMANDS), st.lists(words, max_size=4)
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
requests = st.one_of(
    st.binary(max_size=60),
    json_values.map(lambda value: json.dumps(value).encode()),
    json_values.map(lambda value: json.dumps({"command": value}).encode()),
    st.sampled_from(["pause", "resume", "checkpoint"]).map(lambda name: json.dumps({"command": name}).encode()),
)

ROWS = [{"problem": "1 + 1", "answer": "2"}, {"problem": "2 + 2", "answer": "4"}] * 3
TABLES = {
    ".jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(),
    ".json": json.dumps(ROWS).encode(),
    ".csv": b"problem,answer\n" + b'"1 + 1",2\n' * 6,
    ".parquet": b"PAR1" + bytes(40) + b"PAR1",
}
tables = st.sampled_from(sorted(TABLES)).flatmap(lambda kind: st.tuples(st.just(kind), damaged(TABLES[kind])))

hostile = [text for family in FAMILIES.values() for text in family]
completions = st.lists(
    st.text(max_size=200) | st.sampled_from(hostile) | st.text(alphabet="0123456789+-*/()^{}\\ ", max_size=60),
    min_size=1,
    max_size=12,
)
