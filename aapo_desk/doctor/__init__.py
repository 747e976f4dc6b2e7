"""What this machine lacks for training, and what to do: facts, gathered; findings, judged from them.

The facts of libraries that may be broken come from a process of its own (``worker``).
"""

from aapo_desk.doctor.facts import Facts
from aapo_desk.doctor.finding import Finding
from aapo_desk.doctor.judgement import findings
from aapo_desk.doctor.looking import look

__all__ = ["Facts", "Finding", "findings", "look"]
