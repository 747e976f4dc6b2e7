"""Models: where they come from, how they are loaded, and the log-probs that they give completions."""
