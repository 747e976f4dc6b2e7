"""Turn the errors of the hub's library into one line that says what happened and what to do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from aapo_desk.hub.repo import Repo

TOKENS = "https://huggingface.co/settings/tokens"


class HubError(RuntimeError):
    """Raised if a repository cannot be fetched. ``str()`` is one line for the user.

    ``wrong`` names the part of the configuration that is wrong, if one is: the repository's id or its revision.
    """

    def __init__(self, message: str, wrong: Literal["id", "revision"] | None = None) -> None:
        super().__init__(message)
        self.wrong = wrong


def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions that the library raises for the network, for the hub's answers and for missing files.

    Its own errors inherit from the base error of its HTTP library (httpx or httpx2), so this base covers the errors of
    the connection too.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return (OSError, HFValidationError, json.JSONDecodeError, *HfHubHTTPError.__bases__)


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later: the connection failed, or the hub is busy or down."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        status = int(error.response.status_code)
        return status in (408, 429) or status >= 500
    if isinstance(error, OSError):  # OSError also includes errors that are not transient, such as a full disk
        return isinstance(error, ConnectionError | TimeoutError) and not isinstance(error, OfflineModeIsEnabled)
    return isinstance(error, HfHubHTTPError.__bases__)


def explain(error: Exception, repo: Repo, revision: str) -> HubError:
    """Turn an exception of the library about a repository into a HubError."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return explain(error.__cause__, repo, revision)
    match error:
        case errors.GatedRepoError():
            return HubError(_gated(error, repo))
        case errors.DisabledRepoError():
            return HubError(f"the {repo} has been disabled on the hub: choose another", wrong="id")
        case errors.RepositoryNotFoundError():
            return _not_found(error, repo)
        case errors.RevisionNotFoundError():
            return HubError(f"the {repo} has no branch, tag or commit {revision}; see {repo.page}", wrong="revision")
        case errors.HFValidationError():
            return HubError(f"{repo.id} cannot be the id of a {repo.word} on the hub (owner/name)", wrong="id")
        case errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError():
            return HubError(not_cached(repo, revision))
        case errors.HfHubHTTPError():
            return HubError(_refused(error, repo))
        case errors.FileMetadataError() | json.JSONDecodeError():
            return HubError(
                f"the answer from {repo.endpoint} about the {repo} is not from the hub: {first_line(error)} Check "
                "HF_ENDPOINT, and whether the network has a log-in page"
            )
    if isinstance(error, OSError) and not is_transient(error):
        return HubError(
            f"the cache {repo.cache} cannot be used: {error.strerror or error}; set HF_HOME to use another folder"
        )
    return HubError(
        f"the hub ({repo.endpoint}) cannot be reached for the {repo}: {first_line(error)}; check the network, or name "
        f"a local copy: {repo.local_copy}"
    )


def not_cached(repo: Repo, revision: str) -> str:
    return (
        f"the {repo}, revision {revision}, is not in the cache ({repo.cache}) and cannot be fetched offline: run once "
        f"without --offline (and without HF_HUB_OFFLINE), or name a local copy: {repo.local_copy}"
    )


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, or its type if it has none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def _token() -> str | None:
    """Return where the library's token comes from, in words, or None if there is no token."""
    from huggingface_hub import get_token

    if not get_token():
        return None
    named = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), None)
    return f"the token in {named}" if named else "your token (hf auth login)"


def _bad_token(token: str) -> str:
    return f"the hub does not accept {token}; create another with read access at {TOKENS}"


def _gated(error: Any, repo: Repo) -> str:
    """Return what the user must do to get access. Only the text of the hub's message distinguishes the cases."""
    token = _token()
    if token is None:
        return (
            f"the {repo} is gated: open {repo.page}, log in and agree to its terms, create a token with read access at "
            f"{TOKENS}, then run: hf auth login (or set HF_TOKEN)"
        )
    said = str(error.server_message or error).lower()
    if error.response.status_code == 401:
        return f"the {repo} is gated, and {_bad_token(token)}"
    if "awaiting" in said or "pending" in said:
        return f"the {repo} is gated, and its authors have not answered your request yet; see {repo.page}"
    if "fine-grained" in said:
        return (
            f"the {repo} is gated, and {token} has no access to gated repositories: edit it at {TOKENS} and tick "
            f'"Read access to contents of all public gated repos you can access"'
        )
    if "rejected" in said:
        return f"the {repo} is gated, and its authors have refused your request: choose another"
    return (
        f"the {repo} is gated, and the account of {token} has not agreed to its terms: open {repo.page}, log in with "
        "that account, agree to the terms, and try again"
    )


def _not_found(error: Any, repo: Repo) -> HubError:
    token = _token()
    if token and error.response.status_code == 401:
        return HubError(_bad_token(token))
    private = f"{token} has no access to it" if token else "it is private: log in with hf auth login (or set HF_TOKEN)"
    return HubError(f"there is no such {repo.word} on the hub ({repo.page}), or {private}", wrong="id")


def _refused(error: Any, repo: Repo) -> str:
    """Return the line for an HTTP error that concerns neither the repository nor its terms."""
    status, token = int(error.response.status_code), _token()
    if status == 401 and token:
        return _bad_token(token)
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        when = f"in {wait} seconds" if wait.isdigit() else "in a few minutes"
        more = "" if token else "; logged-in users (hf auth login) have a higher limit"
        return f"the hub accepts no more requests at the moment (429): try again {when}{more}"
    if status >= 500:
        return f"the hub has an error ({status}) for the {repo}: try again later; see https://status.huggingface.co"
    return f"the hub refuses the {repo} ({status}): {first_line(error)}"
