"""The project's wording does not get worse."""

from __future__ import annotations

from tests.docs.prose import LIMIT, findings, in_markdown, in_python


def test_findings_stay_within_the_limit() -> None:
    found = findings()

    shown = "\n".join(map(str, found))
    assert len(found) <= LIMIT, f"{len(found)} findings, limit {LIMIT}; see python -m tests.docs.prose\n{shown}"


def test_docstrings_and_help_texts_that_open_with_a_fragment_are_found() -> None:
    source = '"""What it says."""\noption(help="So many of them.")\nlimit = 1\n"""Of a run."""\n'

    assert [(one.line, one.reason.split(";")[0]) for one in in_python(source, "a.py")] == [
        (1, "a docstring opens with 'What'"),
        (4, "a docstring opens with 'Of'"),
        (2, "a text of help= opens with 'So'"),
    ]


def test_words_are_found_in_strings_and_comments_but_not_in_names() -> None:
    source = 'mend = "mend"\nsay("the run goes on")  # read anew\n"""One.\n\nTwo behind one.\n"""\n'

    assert sorted((one.line, one.reason.split("'")[1]) for one in in_python(source, "a.py")) == [
        (2, "anew"),
        (2, "goes on"),
        (5, "behind"),
    ]


def test_code_in_markdown_is_not_read() -> None:
    source = "Read it anew, not `anew`.\n\n```\nanew\n```\n"

    assert [one.line for one in in_markdown(source, "docs/page.md")] == [1]


def test_a_readme_that_is_too_long_is_found() -> None:
    assert [one.line for one in in_markdown("A line.\n" * 201, "README.md")] == [201]
