"""Several processes that compute one run: their environment, process group, messages and worker."""
