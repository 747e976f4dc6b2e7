"""A repository on the hub, its place in the cache, and what it holds at a commit."""

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
    """Hears a line of what goes on and, where that is known, how much of it is done, from 0 to 1."""

    def __call__(self, text: str, share: float | None = None, /) -> None: ...


def silent(text: str, share: float | None = None, /) -> None:
    """Progress that nobody hears."""


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
        """How a configuration names a folder in its place."""
        return "model.id=/PATH/TO/FOLDER" if self.kind == "model" else "task.source=file:PATH"

    @property
    def cache(self) -> Path:
        """The hub's cache, of all repositories."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)

    @property
    def folder(self) -> Path:
        """Its own part of the cache: refs, blobs and snapshots."""
        return self.cache / f"{self.kind}s--{self.id.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def cached_commit(self, revision: str) -> str | None:
        """The commit that a revision meant when it was last looked up."""
        if COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.folder / "refs" / revision).read_text().strip()
        except (OSError, ValueError):
            return None
        return commit if COMMIT.fullmatch(commit) else None


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit: file names with their sizes in bytes.

    ``revision`` is what was asked for. Where not ``whole``, only those files are known that are in the cache.
    """

    revision: str
    commit: str
    sizes: Mapping[str, int]
    whole: bool = True


def look_up(repo: Repo, revision: str | None, progress: Progress = silent) -> Listing:
    """The commit that a revision (none: the default branch) means now, and its files.

    A commit whose files the cache lists needs no connection. Offline, or where the hub cannot be reached, the cache
    answers, and in the second case ``progress`` hears of it. Raises HubError.
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
    """All files of a commit, as the library noted them when it fetched some; None where it did not."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, HFValidationError

    try:
        tree = get_cached_repo_tree(repo.id, repo_type=repo.kind, revision=commit)
    except (CachedRepoTreeNotFoundError, HFValidationError):
        return None
    return {file.path: file.size for file in tree if _stays_inside(file.path)}


def _cached(repo: Repo, wanted: str) -> Listing | None:
    """What the cache knows of a revision: the files that are listed, else those that are there."""
    commit = repo.cached_commit(wanted)
    if commit is None or not repo.snapshot(commit).is_dir():
        return None
    if (listed := _listed(repo, commit)) is not None:
        return Listing(wanted, commit, listed)
    snapshot = repo.snapshot(commit)
    files = (path for path in snapshot.rglob("*") if path.is_file())
    sizes = {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in files}
    return Listing(wanted, commit, sizes, whole=False)
