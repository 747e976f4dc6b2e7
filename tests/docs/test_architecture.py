"""The page on the architecture lists every package."""

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
