"""The Hugging Face hub: models and data sets looked up, fetched into the hub's own cache, or found there.

look_up(repo, revision)        the commit that is meant, and its files with their sizes
fetch(repo, listing, names)    those files in the cache: what is missing is fetched, what broke off goes on
check_room(repo, listing, ...) whether the disk holds what is missing
go_offline(), offline()        no connection at all

Everything raises HubError with one line that says what to do. The cache is the one of the hub's own tools, in their
layout, so that nothing is fetched twice and ``hf download`` on another machine can fill it.
"""

from aapo_desk.hub.errors import HubError
from aapo_desk.hub.fetching import check_room, fetch
from aapo_desk.hub.offline import go_offline, offline
from aapo_desk.hub.repo import Listing, Progress, Repo, look_up, silent

__all__ = [
    "HubError",
    "Listing",
    "Progress",
    "Repo",
    "check_room",
    "fetch",
    "go_offline",
    "look_up",
    "offline",
    "silent",
]
