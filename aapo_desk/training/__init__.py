"""Training: the background process, its loop, and the step: sample, score, update."""
