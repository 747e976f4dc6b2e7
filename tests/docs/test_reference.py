"""The generated reference pages say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from aapo_desk.config import field_paths
from tests.docs.reference import FOLDER, config_page, pages


@pytest.mark.parametrize("name", ["cli.md", "config.md"])
def test_generated_pages_are_fresh(name: str) -> None:
    path = FOLDER / name

    assert path.read_text(encoding="utf-8") == pages()[path], "run: python -m tests.docs.reference"


def test_every_setting_is_on_the_page() -> None:
    page = config_page()

    missing = [path for path in field_paths() if f"`{path}`" not in page and f"`{path}[]." not in page]
    assert missing == []


def test_the_pages_name_no_path_of_this_machine() -> None:
    assert not [path for path, text in pages().items() if str(Path.home()) in text]
