"""Inputs nobody meant: whatever is given, the user gets a line, never a traceback, and nothing is written elsewhere."""
