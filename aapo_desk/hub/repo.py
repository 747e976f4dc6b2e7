"""A repository on the hub, its folder in the cache, and its files at a commit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from aapo_desk.hub.errors import HubError, explain, failures, is_transient, not_cached

COMMIT = re.compile(r"[0-9a-f]{40}")
SECONDS_TO_ANSWER = 20.0


class Progress(Protocol):
    """A callback for progress: a line of text and, if known, the fraction that is done, from 0 to 1."""

    def __call__(self, text: str, share: float | None = None, /) -> None: ...


def silent(text: str, share: float | None = None, /) -> None:
    """Ignore the progress."""


@dataclass(frozen=True)
class Repo:
    """A model or a data set on the hub. ``str()`` reads as in "the model owner/name"."""

    kind: Literal["model", "dataset"]
    id: str

    def __str__(self) -> str:
        return f"{self.word} {self.id}"

    @property
    def word(self) -> str:
        return "model" if self.kind == "model" else "data set"

    @property
    def endpoint(self) -> str:
        from huggingface_hub import constants

        return constants.ENDPOINT

    @property
    def page(self) -> str:
        return f"{self.endpoint}/{'' if self.kind == 'model' else 'datasets/'}{self.id}"

    @property
    def local_copy(self) -> str:
        """The setting that uses a local copy instead of the hub."""
        return "model.id=/PATH/TO/FOLDER" if self.kind == "model" else "task.source=file:PATH"

    @property
    def cache(self) -> Path:
        """The hub's cache for all repositories."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)

    @property
    def folder(self) -> Path:
        """The repository's folder in the cache, with refs, blobs and snapshots."""
        return self.cache / f"{self.kind}s--{self.id.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def cached_commit(self, revision: str) -> str | None:
        """Return the commit of a revision when it was last looked up, or None if the cache does not know it."""
        if COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.folder / "refs" / revision).read_text().strip()
        except (OSError, ValueError):
            return None
        return commit if COMMIT.fullmatch(commit) else None


@dataclass(frozen=True)
class Listing:
    """The files of a repository at a commit, with their sizes in bytes.

    ``revision`` is the requested revision. If ``whole`` is False, only the files in the cache are known.
    """

    revision: str
    commit: str
    sizes: Mapping[str, int]
    whole: bool = True


def look_up(repo: Repo, revision: str | None, progress: Progress = silent) -> Listing:
    """Return the current commit of a revision (None: the default branch) and its files.

    No connection is made for a commit whose file list is in the cache. Offline, or if the hub cannot be reached, the
    answer comes from the cache; in the second case this is reported to ``progress``. Raises HubError.
    """
    from huggingface_hub import is_offline_mode

    wanted = revision or "main"
    if COMMIT.fullmatch(wanted) and (listed := _listed(repo, wanted)) is not None:
        return Listing(wanted, wanted, listed)
    if is_offline_mode():
        if found := _cached(repo, wanted):
            return found
        raise HubError(not_cached(repo, wanted))
    try:
        return _ask(repo, wanted, revision)
    except failures() as error:
        reason = explain(error, repo, wanted)
        if is_transient(error) and (found := _cached(repo, wanted)):
            progress(f"using the cached copy of the {repo}, commit {found.commit[:7]}: {reason}")
            return found
        raise reason from error


def _ask(repo: Repo, wanted: str, revision: str | None) -> Listing:
    from huggingface_hub import HfApi, RepoFile

    api = HfApi()
    commit = wanted
    if not COMMIT.fullmatch(wanted):
        info = api.repo_info(repo.id, repo_type=repo.kind, revision=revision, timeout=SECONDS_TO_ANSWER)
        commit = str(info.sha)
    tree = api.list_repo_tree(repo.id, repo_type=repo.kind, revision=commit, recursive=True)
    sizes = {file.path: file.size for file in tree if isinstance(file, RepoFile)}
    return Listing(wanted, commit, {name: size for name, size in sizes.items() if _stays_inside(name)})


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _listed(repo: Repo, commit: str) -> dict[str, int] | None:
    """Return all files of a commit from the list that the library keeps in the cache, or None if there is no list."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, HFValidationError

    try:
        tree = get_cached_repo_tree(repo.id, repo_type=repo.kind, revision=commit)
    except (CachedRepoTreeNotFoundError, HFValidationError):
        return None
    return {file.path: file.size for file in tree if _stays_inside(file.path)}


def _cached(repo: Repo, wanted: str) -> Listing | None:
    """Return what the cache knows about a revision: the listed files, else those that are in the cache, else None."""
    commit = repo.cached_commit(wanted)
    if commit is None or not repo.snapshot(commit).is_dir():
        return None
    if (listed := _listed(repo, commit)) is not None:
        return Listing(wanted, commit, listed)
    snapshot = repo.snapshot(commit)
    files = (path for path in snapshot.rglob("*") if path.is_file())
    sizes = {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in files}
    return Listing(wanted, commit, sizes, whole=False)
