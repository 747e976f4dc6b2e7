"""A fault suite: a real training process of the tiny model is killed inside each named phase, and goes on.

By hand: ``python -m tests.faults --kills 25``. In the tests: one kill a phase.
"""
