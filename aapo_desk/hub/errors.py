"""Why something cannot be had from the hub, in one line that says what to do."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from aapo_desk.hub.repo import Repo

TOKENS = "https://huggingface.co/settings/tokens"


class HubError(RuntimeError):
    """A repository that cannot be had; ``str()`` is one line for the user.

    ``wrong`` names what to change in the configuration where that is the reason: the repository's id or its revision.
    """

    def __init__(self, message: str, wrong: Literal["id", "revision"] | None = None) -> None:
        super().__init__(message)
        self.wrong = wrong


def failures() -> tuple[type[Exception], ...]:
    """What the library raises for a network, an answer of the hub or a file that is not there.

    Its own errors have the base of its HTTP library, which is httpx or httpx2, so those of the connection have it too.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return (OSError, HFValidationError, json.JSONDecodeError, *HfHubHTTPError.__bases__)


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed in a moment: the connection failed, or the hub is busy or down."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        status = int(error.response.status_code)
        return status in (408, 429) or status >= 500
    if isinstance(error, OSError):  # a full disk is one too
        return isinstance(error, ConnectionError | TimeoutError) and not isinstance(error, OfflineModeIsEnabled)
    return isinstance(error, HfHubHTTPError.__bases__)


def explain(error: Exception, repo: Repo, revision: str) -> HubError:
    """The line for what the library raised over a repository."""
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
                f"what answers at {repo.endpoint} over the {repo} is not the hub: {first_line(error)} Check "
                "HF_ENDPOINT and the network's log-in page"
            )
    if isinstance(error, OSError) and not is_transient(error):
        return HubError(f"the cache {repo.cache} cannot be used: {error.strerror or error} (HF_HOME moves it)")
    return HubError(
        f"the hub ({repo.endpoint}) cannot be reached for the {repo}: {first_line(error)}; check the network, or name "
        f"a local copy: {repo.local_copy}"
    )


def not_cached(repo: Repo, revision: str) -> str:
    return (
        f"the {repo}, revision {revision}, is not in the cache ({repo.cache}), and offline nothing is fetched: run "
        f"once without --offline (and without HF_HUB_OFFLINE), or name a local copy: {repo.local_copy}"
    )


def first_line(error: Exception) -> str:
    """What an exception says, on one line."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def _token() -> str | None:
    """Where the token comes from that the library sends; None where there is none."""
    from huggingface_hub import get_token

    if not get_token():
        return None
    named = next((name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)), None)
    return f"the token in {named}" if named else "your token (hf auth login)"


def _bad_token(token: str) -> str:
    return f"the hub does not accept {token}; make another with read access at {TOKENS}"


def _gated(error: Any, repo: Repo) -> str:
    """What to click. The hub tells the cases apart in words alone."""
    token = _token()
    if token is None:
        return (
            f"the {repo} is gated: open {repo.page}, log in and agree to its terms, make a token with read access at "
            f"{TOKENS}, and give it to: hf auth login (or set HF_TOKEN)"
        )
    said = str(error.server_message or error).lower()
    if error.response.status_code == 401:
        return f"the {repo} is gated, and {_bad_token(token)}"
    if "awaiting" in said or "pending" in said:
        return f"the {repo} is gated, and your request waits for its authors; {repo.page} tells when they have agreed"
    if "fine-grained" in said:
        return (
            f"the {repo} is gated, and {token} may not read gated repositories: at {TOKENS} edit it and tick "
            f'"Read access to contents of all public gated repos you can access"'
        )
    if "rejected" in said:
        return f"the {repo} is gated, and its authors have refused your request: choose another"
    return (
        f"the {repo} is gated, and the account of {token} has not agreed to its terms: open {repo.page}, logged in as "
        "that account, agree, and start again"
    )


def _not_found(error: Any, repo: Repo) -> HubError:
    token = _token()
    if token and error.response.status_code == 401:
        return HubError(_bad_token(token))
    private = f"{token} may not see it" if token else "it is private: then log in with: hf auth login (or set HF_TOKEN)"
    return HubError(f"there is no such {repo.word} on the hub ({repo.page}), or {private}", wrong="id")


def _refused(error: Any, repo: Repo) -> str:
    """An answer of the hub that is neither about the repository nor about its terms."""
    status, token = int(error.response.status_code), _token()
    if status == 401 and token:
        return _bad_token(token)
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        when = f"in {wait} seconds" if wait.isdigit() else "in a few minutes"
        more = "" if token else "; who is logged in (hf auth login) may ask more often"
        return f"the hub takes no more requests for the moment (429): try again {when}{more}"
    if status >= 500:
        return f"the hub fails ({status}) over the {repo}: try again later; https://status.huggingface.co tells more"
    return f"the hub refuses the {repo} ({status}): {first_line(error)}"
