"""Where an alarm begins and, of two numbers, where it ends: further inside the healthy range.

"Healthy" is what Axolotl publishes as such for GRPO training.
"""

WINDOW = 10
"""Steps that most checks look at: at 4 prompts of 8 completions 320 rows, so that a share is known to about 0.03."""

MOST_TRUNCATED = (0.5, 0.3)
"""More than half is asked for here; healthy: below 0.3."""
NO_REWARD_STEPS = 20
"""Healthy: a reward above 0 within 20 steps."""
LEAST_TEACHING = (0.05, 0.1)
"""Ours: of 32 rows less than two. The published 0.2 is of groups with a deviation; AAPO learns from the others too."""
MOST_MARGINS_AT_A_BOUND = (0.95, 0.85)
"""Ours. The demo's share rises to 0.8 in ten steps while it learns, since a 0/1 reward's margin is at a bound or 0."""
GRADIENT_RANGE = (1e-3, 1.0)
"""Healthy: 0.001 to 1."""
GRADIENT_LEEWAY = 2.0
"""The alarm comes this far above the range: the demo's median reaches 0.96, single steps 1.4, and it learns well."""
SPIKE = 10.0
"""Ours: times the window's median. One such step is cut to max_grad_norm and forgotten; MOST_SPIKES are no accident."""
MOST_SPIKES, SPIKE_WINDOW = 2, 20
LEAST_ENTROPY = (0.05, 0.075)
"""Healthy: 0.05 to 0.5 nats. Above it nothing is raised: an untrained model's answers to an open question lie there."""
MOST_NOT_FINITE = 3
"""Of WINDOW. One or two are passed over; loss scaling in float16 makes some on purpose."""
MOST_UNSCORABLE = (0.1, 0.03)
"""Ours, of the scored completions: a reward function that fails on some texts is blind to them."""
MOST_GAP = {True: 0.01, False: 0.1}
"""Nats a token between rollout and update that rounding explains: in float32, in 16 bits."""
GAP_WINDOW = 3
NEARLY_SOLVED = 0.9
"""Of the largest reward there can be: then sameness is success, and the advice another one."""
LEAST_MEMORY_LEFT = (0.92, 0.88)
"""Ours, of the device: what is left of 8 GB is about what CUDA's own context and a longer batch take."""
LEAST_RISE = (0.1, 0.05)
"""Ours, of the largest reward: over 320 rows chance moves a share by about 0.03."""
LEAST_GAIN = (0.1, 0.2)
"""Ours, of the reward's rise: what the held-out accuracy gains of it at the least."""
LONGEST_WINDOW = max(WINDOW, NO_REWARD_STEPS, SPIKE_WINDOW)
"""Steps that the checks look back at the most."""
