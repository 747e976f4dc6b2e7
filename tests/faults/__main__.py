"""``python -m tests.faults``: the fault suite by hand. Exit status 1 if anything was lost."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=25, help="in each phase")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="a folder with the tiny model; by default it is made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        os.environ["AAPO_DESK_HOME"] = str(Path(folder, "home"))
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # it forks
        model = options.model or _made(Path(folder, "model"))
        return _carry_out(options, model)


def _made(folder: Path) -> Path:
    """Create it in a process of its own, because that starts threads."""
    import subprocess

    program = "import sys; from pathlib import Path; from tests.tiny_model import make; make(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
    return folder


def _carry_out(options: argparse.Namespace, model: Path) -> int:
    from aapo_desk.config import resolve
    from tests.faults.campaign import kill_and_resume, table
    from tests.faults.tiny import configuration

    began = time.monotonic()

    def tell(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {line}\n")

    result, profiles = kill_and_resume(resolve(configuration(model)), options.kills, options.seed, tell)
    if options.json:
        document = {name: asdict(tally) for name, tally in result.tallies.items()}
        sys.stdout.write(json.dumps({"phases": document, "runs": result.runs, "different": result.different}))
    else:
        for name, profile in profiles.items():
            lines = f", {profile.typical(by_line=True):.0f} lines" if profile.lines else ""
            sys.stdout.write(f"{name}: {len(profile.seconds)} times, {1000 * profile.typical(False):.1f} ms{lines}\n")
        sys.stdout.write("\n".join(table(result)) + "\n")
    return 1 if result.losses else 0


if __name__ == "__main__":
    sys.exit(main())
