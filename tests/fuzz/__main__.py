"""``python -m tests.fuzz --examples 1000``: the fuzz suite by hand, with the counts. Exit status 1 where one broke."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="kinds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        os.environ |= {"AAPO_DESK_HOME": f"{folder}/home", "AAPO_DESK_CONFIG": f"{folder}/config", "TMPDIR": folder}
        os.environ["AAPO_DESK_OFFLINE"] = "1"
        os.chdir(folder)
        tempfile.tempdir = folder
        return _all(options, Path(folder))


def _all(options: argparse.Namespace, folder: Path) -> int:
    from tests.fuzz.running import try_out
    from tests.fuzz.targets import TARGETS, forget

    logging.disable()
    broken = total = 0
    for name, target in TARGETS.items():
        if options.only and name not in options.only:
            continue
        began = time.monotonic()
        try:
            tried = try_out(target, options.examples, folder, options.seed)
        except Exception:  # noqa: BLE001 - each kind is tried, and what broke is printed
            broken += 1
            traceback.print_exc()
            sys.stdout.write(f"{name:16} BROKEN\n")
            continue
        total += tried
        sys.stdout.write(f"{name:16} {tried:6} inputs, {time.monotonic() - began:5.1f} s\n")
    forget()
    sys.stdout.write(f"{'all':16} {total:6} inputs, {broken} kinds broke\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
