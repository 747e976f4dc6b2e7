"""Training: the background process, its loop, and one step of it: sample, score, update."""
