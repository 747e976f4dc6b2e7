"""Files of a repository into the cache, with a look at the disk before."""

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
"""From this size on a file is fetched in a way that goes on where it broke off. The library begins anew."""
SPARE = 256 << 20
"""What is to stay free on the disk."""
SECONDS_BETWEEN_LINES = 10.0


def fetch(
    repo: Repo,
    listing: Listing,
    names: Sequence[str],
    progress: Progress = silent,
    clock: Callable[[], float] = time.monotonic,
) -> Path:
    """Have files of a commit in the cache, and give the folder that holds them under their names.

    No connection is made where all are there. Raises HubError.
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
        # Links what has been transferred, fetches the small rest, and notes what the commit holds.
        patterns = [glob.escape(name) for name in missing]
        snapshot_download(repo.id, repo_type=repo.kind, revision=listing.commit, allow_patterns=patterns)
        _remember(repo, listing)
    except failures() as error:
        raise explain(error, repo, listing.revision) from error
    if left := missing_files(repo, listing, missing):
        raise HubError(f"{left[0]} of the {repo} could not be fetched: try again")
    return repo.snapshot(listing.commit)


def missing_files(repo: Repo, listing: Listing, names: Sequence[str]) -> list[str]:
    """Those of the files that the cache does not hold."""
    snapshot = repo.snapshot(listing.commit)
    return [name for name in dict.fromkeys(names) if not (snapshot / name).is_file()]


def check_room(repo: Repo, listing: Listing, names: Sequence[str]) -> None:
    """Raise HubError where the cache's disk has no room for those of the files that are missing, or offline."""
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
            f"the {repo} needs {size(needed)} more in the cache {repo.cache}, whose disk has {size(free)} free: free "
            "some, or move the cache with HF_HOME=/ANOTHER/DISK"
        )


def size(count: int) -> str:
    """Bytes as people say them."""
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
        f"the {repo} is not whole in the cache ({repo.cache}): {missing[0]}{more} is missing, and offline nothing is "
        f"fetched: run once without --offline (and without HF_HUB_OFFLINE), or: hf download {repo.id} "
        f"--repo-type {repo.kind} --revision {listing.commit}"
    )


def _remember(repo: Repo, listing: Listing) -> None:
    """Note which commit the branch or tag means, for those who look it up without a connection."""
    if COMMIT.fullmatch(listing.revision):
        return
    ref = repo.folder / "refs" / listing.revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    aside = ref.with_name(f".{ref.name}.{os.getpid()}")
    aside.write_text(listing.commit)
    aside.replace(ref)


@dataclass
class _Bar:
    """Tells how far a transfer is: at the start, at each tenth, and at least every ten seconds."""

    repo: Repo
    total: int
    progress: Progress
    clock: Callable[[], float]
    done: int = 0
    """Bytes of the files that are finished."""
    _told: tuple[int, float, int] | None = field(default=None, init=False)
    """The tenth, the time and the bytes of the last line."""

    def at(self, position: int) -> None:
        """So many bytes of the file in work are there."""
        here, now = self.done + position, self.clock()
        tenth = 10 * here // self.total
        if self._told and tenth == self._told[0] and now - self._told[1] < SECONDS_BETWEEN_LINES:
            return
        line = f"fetching the {self.repo}: {size(here)} of {size(self.total)}"
        if self._told and now > self._told[1]:
            line += f", {size(int((here - self._told[2]) / (now - self._told[1])))}/s"
        self._told = (tenth, now, here)
        self.progress(line, here / self.total)
