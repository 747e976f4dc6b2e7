"""Libraries that break, crash, end the process or hang: the doctor is told, and the rest is looked at all the same."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from aapo_desk.doctor.asking import Answer, ask

SPOILT = {
    "peft": "raise ImportError('no HybridCache in transformers\\nand more')",
    "accelerate": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "transformers": "import sys; sys.exit('this library wants another Python')",
    "bitsandbytes": "import os, sys; sys.stderr.write('undefined symbol: cget_managed_ptr\\n'); os._exit(7)",
    "datasets": "import time; print('noise on standard output'); time.sleep(60)",
    "unsloth": "print('noise on standard output')\nFastLanguageModel = None",
}


@pytest.fixture
def spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which these libraries are what their lines do."""
    for name, text in SPOILT.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.usefixtures("spoilt")
def test_what_is_broken_is_told_and_the_others_are_looked_at() -> None:
    jobs = ["peft", "accelerate", "transformers", "bitsandbytes", "unsloth"]
    assert ask(jobs, 60) == {
        "peft": Answer(error="ImportError: no HybridCache in transformers"),
        "accelerate": Answer(error="ended the process by SIGSEGV"),
        "transformers": Answer(error="SystemExit: this library wants another Python"),
        "bitsandbytes": Answer(error="ended the process with status 7: undefined symbol: cget_managed_ptr"),
        "unsloth": Answer(found={}),
    }


@pytest.mark.usefixtures("spoilt")
def test_what_hangs_is_given_up_and_its_process_ended() -> None:
    began = time.monotonic()
    assert ask(["datasets", "unsloth"], 0.5) == {
        "datasets": Answer(error="gave no answer within 0.5 s"),
        "unsloth": Answer(found={}),
    }
    assert time.monotonic() - began < 30


def test_a_process_that_does_not_come_to_its_jobs_says_why_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    answers = ask(["torch", "peft"], 60)
    assert answers.keys() == {"torch", "peft"}
    for answer in answers.values():
        assert answer.found is None
        assert answer.error
        assert answer.error.startswith("ended the process with status 1: ")
