"""The page on the architecture lists every package and every module."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_packages_on_the_architecture_page_are_those_of_the_project() -> None:
    page = (ROOT / "docs" / "development" / "architecture.md").read_text(encoding="utf-8")

    listed = re.findall(r"^### (aapo_desk\.[\w.]+)$", page, flags=re.MULTILINE)
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "aapo_desk").rglob("*/__init__.py")
    } - {"aapo_desk"}
    assert len(listed) == len(set(listed))
    assert set(listed) == packages


def test_each_package_lists_its_own_modules_and_no_others() -> None:
    page = (ROOT / "docs" / "development" / "architecture.md").read_text(encoding="utf-8")
    sections = re.split(r"^### (aapo_desk\.[\w.]+)$", page, flags=re.MULTILINE)[1:]

    for package, text in zip(sections[::2], sections[1::2], strict=True):
        items = re.findall(r"^- .*?:(?=\s)", text.partition("\n## ")[0], flags=re.MULTILINE | re.DOTALL)
        listed = {name for item in items for name in re.findall(r"`(\w+\.py)`", item)}
        modules = {path.name for path in ROOT.joinpath(*package.split(".")).glob("*.py")} - {"__init__.py"}
        assert listed == modules, f"{package}: {sorted(listed ^ modules)}"
