"""One archive of a run for a bug report: what happened, with which settings and versions, on which machine.

Of the user's data it holds nothing unless that is asked for.
"""

from aapo_desk.bundle.making import Bundle, BundleError, file_name, make

__all__ = ["Bundle", "BundleError", "file_name", "make"]
