"""Whether a locale has the symbols that the screen draws with. Imports nothing, so that it can be asked anywhere."""

from __future__ import annotations

from collections.abc import Mapping

C_LOCALES = frozenset({"C", "POSIX"})
COERCED = frozenset({"C.UTF-8", "C.utf8", "UTF-8"})  # what Python itself puts into LC_CTYPE in a C locale (PEP 538)


def shows_symbols(environment: Mapping[str, str], encoding: str | None) -> bool:
    """Whether a locale's encoding has the symbols; ``encoding``: of the stream that is drawn on.

    The locale is taken as the user set it: in a C locale Python has changed it to UTF-8 for itself, but the terminal,
    or tmux, has not. No locale at all (a container) says nothing about the terminal: then it is believed to be able.
    """
    if encoding is not None and not _is_unicode(encoding):
        return False
    kind = environment.get("LC_CTYPE", "")
    name = environment.get("LC_ALL") or (kind if kind not in COERCED else "") or environment.get("LANG", "")
    charset = name.partition("@")[0].partition(".")[2]
    return name not in C_LOCALES and (not charset or _is_unicode(charset))


def _is_unicode(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") in {"utf8", "utf16", "utf32"}
