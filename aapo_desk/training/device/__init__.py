"""A run's use of its device: the execution plan, the memory probe before the first step, and the allocator."""
