"""A trainer whose end is in its run's name: what the queue's tests work off without training anything.

``fails...``: it says that it failed. ``dies...``: it ends without a word, each time after step 4. ``limps...``: so the
first time, at step 2, then it comes to its end. ``stays...``: it trains until it is asked to stop. All others: to their
end. Each notes in the home's ``played`` when it begins and when it ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

PLAYER = """
import fcntl, json, os, sys, time
from pathlib import Path

run = Path(sys.argv[1])
name = json.loads((run / "meta.json").read_text())["name"]
lock = open(run / "run.lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX)
played = open(run.parent.parent / "played", "a")
played.write(f"begin {name}\\n")
played.flush()

def say(state, step, message=""):
    aside = run / "aside"
    aside.write_text(json.dumps({"state": state, "step": step, "steps": 9, "heartbeat": time.time(), "pid": os.getpid(),
                                 "host": os.uname().nodename, "message": message}))
    aside.replace(run / "status.json")

again = (run / "once").exists()
(run / "once").touch()
say("running", 1)
if name.startswith("dies") or (name.startswith("limps") and not again):
    say("running", 4 if name.startswith("dies") else 2)
    played.write(f"end {name}\\n")
    os._exit(1)
ends = {"stop": "stopped"}
state = "running"
while name.startswith("stays") and not again and state != "stopped":
    for path in (run / "commands").glob("*.json"):
        state = {"pause": "paused", "resume": "running", "stop": "stopped"}[json.loads(path.read_text())["command"]]
        path.unlink()
    say(state, 3)
    time.sleep(0.01)
played.write(f"end {name}\\n")
played.flush()
if state == "stopped":
    say("stopped", 3)
elif name.startswith("fails"):
    say("failed", 1, "the reward broke")
else:
    say("finished", 9, "finished")
"""
PLAYED = (sys.executable, "-S", "-c", PLAYER)


def played(home: Path) -> list[str]:
    """The starts and ends, in their order."""
    return (home / "played").read_text().splitlines()
