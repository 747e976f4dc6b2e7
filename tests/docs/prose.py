"""List the sentences of the project that should be read again: ``python -m tests.docs.prose``.

Reads the docstrings, comments, and texts for users in the Python files of ``aapo_desk`` and ``tests``, the comments of
the presets, and the Markdown documents. Prints ``path:line: reason`` for each finding, and the total. The exit status
is 1 above ``LIMIT``.

The checks are word lists, so a finding may be right as it is ("the process behind the screen"). They show where the
wording deserves a second look, and they keep it from getting worse.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 25
README_LINES = 200

OPENING = re.compile(r"\s*(What|Of|So|Whether|Where)\b")
"""A docstring that opens like this is a fragment that needs the name of its symbol."""

HELP = frozenset({"help", "description", "tooltip"})
"""Keyword arguments whose text is shown to users on its own, as a docstring is."""

WORDS = {
    "anew": "again",
    "mend(s|ed|ing)?": "fix",
    "whoever": "name the person or the program",
    "(goes|go|going|went|gone) on": "continue, resume",
    "is said": "is reported, is shown, or who says it",
    "(lies|lie) in": "is in",
    "(stands|stand) in": "is in",
    "behind": "after, unless it is a place",
}
_WORDS = [(re.compile(rf"\b{word}\b", re.IGNORECASE), better) for word, better in WORDS.items()]
_ANY_WORD = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)
"""Asked first, since most texts hold none of them."""

GENERATED = frozenset({"docs/reference/cli.md", "docs/reference/config.md"})
"""Their texts are found in the code."""


@dataclass(frozen=True, order=True)
class Finding:
    """A place in the project and why it should be read again."""

    path: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


def findings(root: Path = ROOT) -> list[Finding]:
    """Return every finding of the project, sorted by place."""
    found: set[Finding] = set()
    for folder in ("aapo_desk", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            if path.parent != Path(__file__).parent:  # these files name the words
                found.update(in_python(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()))
    for path in sorted((root / "presets").glob("*.yaml")):
        found.update(_in_yaml(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix()))
    for path in sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")]):
        name = path.relative_to(root).as_posix()
        if name not in GENERATED:
            found.update(in_markdown(path.read_text(encoding="utf-8"), name))
    return sorted(found)


def in_python(source: str, path: str) -> Iterator[Finding]:
    """Yield the findings of a Python file's docstrings, comments, and string constants with spaces."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and (text := _text(node.value)) is not None:
            yield from _opening(text, path, node.lineno, "docstring")
        elif isinstance(node, ast.keyword) and node.arg in HELP and (text := _text(node.value)) is not None:
            yield from _opening(text, path, node.value.lineno, f"text of {node.arg}=")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield from _words(node.value, path, node.lineno, one_line=node.lineno == node.end_lineno)
    if not any("#" in line and _ANY_WORD.search(line) for line in source.splitlines()):
        return  # splitting into tokens takes long
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from _words(token.string, path, token.start[0])


def in_markdown(source: str, path: str) -> Iterator[Finding]:
    """Yield the findings of a Markdown document. Code, inline or as a block, is not read."""
    lines = source.splitlines()
    if path == "README.md" and len(lines) > README_LINES:
        yield Finding(path, len(lines), f"the README has {len(lines)} lines; at most {README_LINES}")
    fenced = False
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield from _words(re.sub(r"`[^`]*`", "", line), path, number)


def _in_yaml(source: str, path: str) -> Iterator[Finding]:
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("#"):
            yield from _words(line, path, number)


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _opening(text: str, path: str, line: int, kind: str) -> Iterator[Finding]:
    if match := OPENING.match(text):
        yield Finding(path, line, f"a {kind} opens with {match[1]!r}; begin with a verb or a noun phrase")


def _words(text: str, path: str, line: int, one_line: bool = True) -> Iterator[Finding]:
    if not _ANY_WORD.search(text):
        return
    for pattern, better in _WORDS:
        for match in pattern.finditer(text):
            # Only a text in triple quotes has its line breaks in the source.
            below = 0 if one_line else text.count("\n", 0, match.start())
            yield Finding(path, line + below, f"{match[0]!r}: {better}")


def main() -> int:
    """Print the findings and their total. Return the exit status."""
    found = findings()
    for finding in found:
        sys.stdout.write(f"{finding}\n")
    sys.stdout.write(f"{len(found)} findings, limit {LIMIT}\n")
    return int(len(found) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
