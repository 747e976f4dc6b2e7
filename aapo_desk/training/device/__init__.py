"""How a run uses its device: the execution plan, the memory probe before the first step, the allocator."""
