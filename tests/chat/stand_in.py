"""A program that keeps to the model process's side of the pipes, with answers that are known: no torch, no model."""

from __future__ import annotations

import sys

import pytest

from aapo_desk.chat import client

PROGRAM = r"""
import json, sys, time

def say(kind, **more):
    print(json.dumps({"kind": kind, **more}), flush=True)

def answer(request):
    number, question = request["ask"], request.get("text") or problems[request["own"]]["problem"]
    if "too long" in question:
        say("refused", id=number, error="with what was said before, this is 9000 tokens")
        return
    if "die" in question:
        sys.exit("it broke")
    say("begun", id=number, prompt_tokens={side: 7 for side in sides})
    texts = {"base": f"base on {question}", "tuned": "tuned\nin \x1b[31mred"}
    for side in sides:
        for word in texts[side].split(" "):
            say("piece", id=number, side=side, text=word + " ")
    if "long" in question:
        assert json.loads(sys.stdin.readline()) == {"cancel": number}
    why = "cancelled" if "long" in question else "end"
    for side in sides:
        say("end", id=number, side=side, text=texts[side], tokens=3, seconds=0.5, why=why)
    say("done", id=number, first=0.1, seconds=0.5)

setup = json.loads(sys.stdin.readline())
sides = setup["sides"]
if setup["step"] == "7":
    say("failed", problems=[{"path": "--step", "message": "there is no such checkpoint", "given": "7"}])
    sys.exit(2)
if setup["step"] == "8":
    say("failed", error="the checkpoint is damaged")
    sys.exit(1)
say("progress", text="loading torch and transformers")
problems = [{"problem": f"{n} + {n} =", "answer": str(2 * n)} for n in range(12)]
say("ready", run="20260102-100000-ab12", name="sums", step=5, chosen="the best by held-out accuracy",
    model="owner/tiny", device="CPU", live=False, context=1024, max_new_tokens=256, problems=problems, note="",
    seconds=1.5)
asked = open(setup["run"] + "/asked.jsonl", "a")
for line in sys.stdin:
    request = json.loads(line)
    print(line, end="", file=asked, flush=True)
    if "ask" in request:
        answer(request)
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model process is the stand-in."""
    monkeypatch.setattr(client, "python", lambda _: [sys.executable, "-c", PROGRAM])
