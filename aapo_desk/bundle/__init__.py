"""An archive of a run for a bug report: what happened, with which settings and versions, on which machine.

It contains none of the user's data unless requested.
"""

from aapo_desk.bundle.making import Bundle, BundleError, file_name, make

__all__ = ["Bundle", "BundleError", "file_name", "make"]
