"""Checking whether a locale can display the screen's symbols. It imports nothing, so it can be used anywhere."""

from __future__ import annotations

from collections.abc import Mapping

C_LOCALES = frozenset({"C", "POSIX"})
COERCED = frozenset({"C.UTF-8", "C.utf8", "UTF-8"})  # Values that Python sets LC_CTYPE to in a C locale (PEP 538).


def shows_symbols(environment: Mapping[str, str], encoding: str | None) -> bool:
    """Return whether a locale's encoding has the symbols; ``encoding`` is that of the output stream.

    The locale counts as the user set it: in a C locale Python switches itself to UTF-8, but the terminal, or tmux, does
    not. If no locale is set at all (as in a container), the terminal is assumed to display the symbols.
    """
    if encoding is not None and not _is_unicode(encoding):
        return False
    kind = environment.get("LC_CTYPE", "")
    name = environment.get("LC_ALL") or (kind if kind not in COERCED else "") or environment.get("LANG", "")
    charset = name.partition("@")[0].partition(".")[2]
    return name not in C_LOCALES and (not charset or _is_unicode(charset))


def _is_unicode(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") in {"utf8", "utf16", "utf32"}
