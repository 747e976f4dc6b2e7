"""Training one run in several processes: environment, process group, messages and worker."""
