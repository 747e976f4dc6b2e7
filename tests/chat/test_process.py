"""The model process itself, on the tiny model."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aapo_desk.chat import SIDES, ChatProcess
from aapo_desk.launch.child import environment
from tests.export.runs import trained_run
from tests.stand_in import exists, until

PARENT = """
import sys, time
from pathlib import Path
from aapo_desk.chat import SIDES, ChatProcess
from aapo_desk.store import RunDirectory
print(ChatProcess(RunDirectory(Path(sys.argv[1])), None, SIDES, lambda said: None).pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("desk_home")
def test_it_loads_answers_cancels_and_forgets(tiny_config: dict[str, Any]) -> None:
    run = trained_run(tiny_config)
    heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def said(*kinds: str) -> dict[str, Any]:
        while True:
            message = heard.get(timeout=60)
            assert message["kind"] != "failed", message
            if message["kind"] in kinds:
                return message

    process = ChatProcess(run, None, SIDES, heard.put)
    try:
        ready = said("ready")
        assert (ready["step"], ready["device"], ready["context"], len(ready["problems"])) == (1, "CPU", 1024, 8)
        greedy = {"temperature": 0, "top_p": 1, "max_new_tokens": 8}
        process.send({"ask": 1, "text": "What is 2 plus 3?", **greedy})
        ends = {end["side"]: end for end in (said("end"), said("end"))}
        assert ends["base"]["text"] != ends["tuned"]["text"]
        assert said("done")["id"] == 1
        process.send({"ask": 2, "own": 0, **greedy, "max_new_tokens": 900})
        said("piece")
        process.send({"cancel": 2})
        assert said("end")["why"] == "cancelled"
        assert said("done")["id"] == 2
        process.send({"reset": True})
        process.send({"ask": 3, "text": "What is 2 plus 3?", **greedy})
        again = {end["side"]: end["text"] for end in (said("end"), said("end"))}
        assert again == {side: end["text"] for side, end in ends.items()}
    finally:
        process.end()
    assert not exists(process.pid)


@pytest.mark.usefixtures("desk_home")
def test_it_dies_with_its_parent_even_while_it_loads(tiny_config: dict[str, Any]) -> None:
    run = trained_run(tiny_config)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(run.path)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert exists(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not exists(pid))


@pytest.mark.usefixtures("desk_home")
def test_one_that_is_killed_is_told_and_one_that_was_ended_says_nothing_more(
    tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    run = trained_run(tiny_config, steps=(1,))
    heard: list[dict[str, Any]] = []
    killed = ChatProcess(run, None, SIDES, heard.append)
    os.kill(killed.pid, signal.SIGKILL)
    until(lambda: any(said["kind"] == "failed" for said in heard))
    assert "was killed" in heard[-1]["error"]
    killed.end()
    heard.clear()
    ended = ChatProcess(run, None, SIDES, heard.append)
    ended.end()
    assert not any(said["kind"] == "failed" for said in heard)
    ended.send({"reset": True})  # of no use, and no error
