"""What a run leaves for other tools: its adapter, a merged 16-bit model, a GGUF file.

    choose(run, step)      which checkpoint, and that it is whole
    export(request, ...)   write it, load it again, hold it against base plus adapter; only then it has its name
    check_folder(folder)   whether an export is still what was proved

Choosing and checking import nothing heavy. An export is made in ``exporting``, which is imported by name.
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
