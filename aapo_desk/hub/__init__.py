"""Access to the Hugging Face hub: look up models and data sets, and fetch them into the hub's own cache.

look_up(repo, revision)        return the commit of a revision, and its files with their sizes
fetch(repo, listing, names)    fetch the files that are missing in the cache; resume interrupted downloads
check_room(repo, listing, ...) check that the disk has space for the missing files
go_offline(), offline()        turn off all connections; return whether they are off

All errors are HubErrors with one line that says what to do. The cache is that of the hub's own tools, in their layout,
so that nothing is fetched twice and ``hf download`` can fill it too.
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
