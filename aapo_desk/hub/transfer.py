"""Fetch one large file into the cache, and resume a transfer that was interrupted.

The library's own download starts again in every process, because its unfinished files have unique names and are
removed. Here an unfinished file is named after its content, so that the next process can resume it. The file comes in
plain HTTP ranges, and its SHA-256 is checked if the hub gives one. The result in the cache is the same as the
library's.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from aapo_desk.hub.errors import HubError, failures, first_line, is_transient
from aapo_desk.hub.repo import Listing, Progress, Repo

UNFINISHED = ".aapo-desk.incomplete"
CHUNK = 1 << 20
PAUSES = (1.0, 2.0, 4.0, 8.0, 8.0)
"""Seconds to wait before each new attempt, after attempts that received nothing."""
SHA256 = re.compile(r"[0-9a-f]{64}")


def transfer(
    repo: Repo,
    listing: Listing,
    name: str,
    at: Callable[[int], None],
    progress: Progress,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch the content of a file into the cache's blobs. ``at`` is called with the number of bytes received so far.

    The library's exceptions propagate. Raises HubError if the content arrives damaged.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(repo.id, name, repo_type=repo.kind, revision=listing.commit)
    etag = get_hf_file_metadata(url).etag
    if etag is None:
        raise HubError(f"the hub gives no content hash for {name} of the {repo}, so it cannot be fetched safely")
    blob = repo.folder / "blobs" / etag
    blob.parent.mkdir(parents=True, exist_ok=True)
    with _alone(repo, etag, progress, sleep):
        if blob.exists():
            return
        part = blob.with_name(etag + UNFINISHED)
        with part.open("ab") as file:
            _fill(file, url, listing.sizes[name], at, progress, sleep)
        if SHA256.fullmatch(etag) and (found := _sha256(part)) != etag:
            part.unlink()
            raise HubError(f"{name} of the {repo} arrived damaged (SHA-256 {found}, not {etag}): try again")
        part.replace(blob)


def _fill(
    file: IO[bytes],
    url: str,
    length: int,
    at: Callable[[int], None],
    progress: Progress,
    sleep: Callable[[float], None],
) -> None:
    """Append to the file until it is complete. Only attempts that receive nothing count towards the limit."""
    attempt = 0
    if file.tell() > length:
        _empty(file)
    while file.tell() < length:
        before = file.tell()
        at(before)
        try:
            _append(file, url, at)
            if file.tell() > before:
                continue
            error: Exception = ConnectionError("the connection ended before the file was complete")
        except failures() as failure:
            if not is_transient(failure):
                raise
            error = failure
        attempt = 0 if file.tell() > before else attempt
        if attempt == len(PAUSES):
            raise error
        progress(f"the connection failed ({first_line(error)}); trying again in {PAUSES[attempt]:.0f} s")
        sleep(PAUSES[attempt])
        attempt += 1
    if file.tell() > length:
        raise HubError("the hub sent more bytes than the file has: try again")


def _append(file: IO[bytes], url: str, at: Callable[[int], None]) -> None:
    """Send one request that continues at the end of the file.

    It starts from the hub's own URL each time, because the URLs that this redirects to expire.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    start = file.tell()
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream(
        "GET", url, headers=headers, follow_redirects=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
    ) as response:
        hf_raise_for_status(response)
        if start and response.status_code != 206:  # the server ignored the range and sends the whole file
            _empty(file)
        for chunk in response.iter_bytes(CHUNK):
            file.write(chunk)
            at(file.tell())


def _empty(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


@contextmanager
def _alone(repo: Repo, etag: str, progress: Progress, sleep: Callable[[float], None]) -> Iterator[None]:
    """Keep two processes from fetching the same content at once: the second waits, then finds it in the cache."""
    lock = repo.cache / ".locks" / repo.folder.name / f"{etag}.aapo-desk.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("ab") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    progress(f"another process is fetching the {repo}; waiting for it")
                    told = True
                sleep(0.5)
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
