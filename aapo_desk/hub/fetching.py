"""Fetch files of a repository into the cache, after checking the disk space."""

from __future__ import annotations

import glob
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aapo_desk.hub.errors import HubError, explain, failures
from aapo_desk.hub.repo import COMMIT, Listing, Progress, Repo, silent
from aapo_desk.hub.transfer import UNFINISHED, transfer

BIG = 16 << 20
"""Files of at least this size (in bytes) are fetched by ``transfer``, which resumes an interrupted download. The
library would start again."""
SPARE = 256 << 20
"""Bytes that must stay free on the disk."""
SECONDS_BETWEEN_LINES = 10.0


def fetch(
    repo: Repo,
    listing: Listing,
    names: Sequence[str],
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Fetch files of a commit into the cache, and return the folder that has them under their names.

    If all files are in the cache, no connection is made. Raises HubError.
    """
    from huggingface_hub import is_offline_mode, snapshot_download

    missing = missing_files(repo, listing, names)
    if not missing:
        return repo.snapshot(listing.commit)
    if is_offline_mode():
        raise HubError(_incomplete(repo, listing, missing))
    check_room(repo, listing, missing)
    big = [name for name in missing if listing.sizes[name] >= BIG]
    try:
        if big:
            bar = _Bar(repo, sum(listing.sizes[name] for name in big), progress, clock)
            for name in big:
                transfer(repo, listing, name, bar.at, progress)
                bar.done += listing.sizes[name]
        else:
            progress(f"fetching {_count(missing)} of the {repo}")
        # This links the large files, fetches the small ones, and records the file list of the commit.
        patterns = [glob.escape(name) for name in missing]
        snapshot_download(repo.id, repo_type=repo.kind, revision=listing.commit, allow_patterns=patterns)
        _remember(repo, listing)
    except failures() as error:
        raise explain(error, repo, listing.revision) from error
    if left := missing_files(repo, listing, missing):
        raise HubError(f"{left[0]} of the {repo} could not be fetched; try again")
    return repo.snapshot(listing.commit)


def missing_files(repo: Repo, listing: Listing, names: Sequence[str]) -> list[str]:
    """Return the files that are not in the cache."""
    snapshot = repo.snapshot(listing.commit)
    return [name for name in dict.fromkeys(names) if not (snapshot / name).is_file()]


def check_room(repo: Repo, listing: Listing, names: Sequence[str]) -> None:
    """Raise HubError if files are missing and the cache's disk has no space for them, or if the program is offline."""
    from huggingface_hub import is_offline_mode

    missing = missing_files(repo, listing, names)
    if not missing:
        return
    if is_offline_mode():
        raise HubError(_incomplete(repo, listing, missing))
    there = sum(path.stat().st_size for path in (repo.folder / "blobs").glob(f"*{UNFINISHED}"))
    needed = max(0, sum(listing.sizes[name] for name in missing) - there)
    free = shutil.disk_usage(_existing(repo.cache)).free
    if needed + SPARE > free:
        raise HubError(
            f"the {repo} needs {size(needed)} more in the cache {repo.cache}, but its disk has only {size(free)} free: "
            "free some space, or move the cache with HF_HOME=/ANOTHER/DISK"
        )


def size(count: int) -> str:
    """Format a number of bytes, such as ``1.5 GB``."""
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1000:.0f} kB"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} small files" if len(names) > 1 else names[0]


def _incomplete(repo: Repo, listing: Listing, missing: Sequence[str]) -> str:
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return (
        f"the {repo} is incomplete in the cache ({repo.cache}): {missing[0]}{more} is missing and cannot be fetched "
        f"offline: run once without --offline (and without HF_HUB_OFFLINE), or run: hf download {repo.id} "
        f"--repo-type {repo.kind} --revision {listing.commit}"
    )


def _remember(repo: Repo, listing: Listing) -> None:
    """Record the commit of the branch or tag, so that it can be looked up without a connection."""
    if COMMIT.fullmatch(listing.revision):
        return
    ref = repo.folder / "refs" / listing.revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    aside = ref.with_name(f".{ref.name}.{os.getpid()}")
    aside.write_text(listing.commit)
    aside.replace(ref)


@dataclass
class _Bar:
    """Reports the progress of a transfer: at the start, at each tenth, and at least every ten seconds."""

    repo: Repo
    total: int
    progress: Progress
    clock: Callable[[], float]
    done: int = 0
    """Bytes of the finished files."""
    _told: tuple[int, float, int] | None = field(default=None, init=False)
    """The tenth, the time and the bytes at the last report."""

    def at(self, position: int) -> None:
        """Report that ``position`` bytes of the current file are there."""
        here, now = self.done + position, self.clock()
        tenth = 10 * here // self.total
        if self._told and tenth == self._told[0] and now - self._told[1] < SECONDS_BETWEEN_LINES:
            return
        line = f"fetching the {self.repo}: {size(here)} of {size(self.total)}"
        if self._told and now > self._told[1]:
            line += f", {size(int((here - self._told[2]) / (now - self._told[1])))}/s"
        self._told = (tenth, now, here)
        self.progress(line, here / self.total)
