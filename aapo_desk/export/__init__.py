"""Export a run for other tools: its adapter, a merged 16-bit model, or a GGUF file.

    choose(run, step)      choose the checkpoint
    export(request, ...)   write it, load it again, compare it with base plus adapter; rename it only if it agrees
    check_folder(folder)   check whether an export is unchanged since it was verified

Choosing and checking import nothing heavy. ``exporting`` makes the export and must be imported explicitly.
"""

from aapo_desk.export.folders import check_folder
from aapo_desk.export.request import FORMS, QUANTS, ExportError, Form, Request, Source, check_request, choose

__all__ = [
    "FORMS",
    "QUANTS",
    "ExportError",
    "Form",
    "Request",
    "Source",
    "check_folder",
    "check_request",
    "choose",
]
