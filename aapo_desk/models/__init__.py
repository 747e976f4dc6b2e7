"""Where a model comes from, how it is loaded, and what it says about completions."""
