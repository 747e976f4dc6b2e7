"""Check whether this machine can train, and advise what to do: facts are collected, then turned into findings.

The facts about libraries come from a separate process (``worker``), because a broken library may crash or hang.
"""

from aapo_desk.doctor.facts import Facts
from aapo_desk.doctor.finding import Finding
from aapo_desk.doctor.judgement import findings
from aapo_desk.doctor.looking import look

__all__ = ["Facts", "Finding", "findings", "look"]
