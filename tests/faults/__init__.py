"""The fault suite: a real trainer of the tiny model is killed inside each named phase, and resumed.

By hand: ``python -m tests.faults --kills 25``. In the tests: one kill per phase.
"""
