"""The UI on one run with statistics of its reader: ``python -m aapo_desk.bench.watched RUN NOTE``.

NOTE is the path of the JSON file that is written at the end: ``reads`` is the number of read transactions, and
``longest_read_ms`` the duration of the longest one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from aapo_desk.store import RunDirectory, find_run
from aapo_desk.tui.app import DeskApp
from aapo_desk.tui.poll import StoredRun


def main(reference: str, note: Path) -> int:
    sources: list[StoredRun] = []

    def remember(run: RunDirectory) -> StoredRun:
        sources.append(StoredRun(run))
        return sources[-1]

    app = DeskApp(find_run(reference))
    app.open_source = remember
    app.run()
    readers = [source.reader for source in sources]
    reads = sum(reader.reads for reader in readers)
    longest = max(reader.longest_read for reader in readers)
    note.write_text(json.dumps({"reads": reads, "longest_read_ms": 1000 * longest}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
