"""The thresholds of the alarms.

Of two numbers, the first is where an alarm begins, and the second, further inside the healthy range, where it ends.
"Healthy" refers to the ranges that Axolotl publishes for GRPO training; "our choice" marks the other thresholds.
"""

WINDOW = 10
"""Steps that most checks look at. With 4 prompts of 8 completions these are 320 rows, enough for a share to +-0.03."""

MOST_TRUNCATED = (0.5, 0.3)
"""The share of truncated completions. Healthy: below 0.3; the alarm begins only above half."""
NO_REWARD_STEPS = 20
"""Steps without a mean reward above 0. Healthy: a reward above 0 within 20 steps."""
LEAST_TEACHING = (0.05, 0.1)
"""The share of rows with a nonzero advantage. Our choice: fewer than 2 of 32 rows. The published limit of 0.2 counts
groups with a nonzero standard deviation, but AAPO learns from the other groups too."""
MOST_MARGINS_AT_A_BOUND = (0.95, 0.85)
"""The share of margins at a bound. Our choice: in the demo the share rises to 0.8 within ten steps while it learns,
since the margin of a 0/1 reward is either at a bound or 0."""
GRADIENT_RANGE = (1e-3, 1.0)
"""The gradient norm. Healthy: 0.001 to 1."""
GRADIENT_LEEWAY = 2.0
"""The alarm begins at this multiple of the range's upper end, since the demo, which learns well, has a median norm of
up to 0.96 and single steps of 1.4."""
SPIKE = 10.0
"""A gradient norm above this multiple of the window's median is a spike. Our choice: a single one is clipped to
max_grad_norm and does no harm; MOST_SPIKES of them are no accident."""
MOST_SPIKES, SPIKE_WINDOW = 2, 20
LEAST_ENTROPY = (0.05, 0.075)
"""Entropy in nats per token. Healthy: 0.05 to 0.5. A higher one raises no alarm, since an untrained model's answers to
an open question have such an entropy."""
MOST_NOT_FINITE = 3
"""Non-finite steps among WINDOW. One or two are tolerated, since loss scaling in float16 causes some on purpose."""
MOST_UNSCORABLE = (0.1, 0.03)
"""The share of completions that could not be scored. Our choice: a reward function cannot teach where it fails."""
MOST_GAP = {True: 0.01, False: 0.1}
"""The log-probability gap between rollout and update, in nats per token, that rounding explains: True for a model in
float32 or better, False for 16 bits."""
GAP_WINDOW = 3
NEARLY_SOLVED = 0.9
"""The share of the largest possible reward above which uniform completions count as success, with other advice."""
LEAST_MEMORY_LEFT = (0.92, 0.88)
"""The used share of the device's memory. Our choice: what is left of 8 GB is about what the CUDA context and a longer
batch need."""
LEAST_RISE = (0.1, 0.05)
"""The reward's rise as a share of the largest reward. Our choice: over 320 rows chance moves a share by about 0.03."""
LEAST_GAIN = (0.1, 0.2)
"""The minimum gain in held-out accuracy, as a share of the reward's rise. Our choice."""
LONGEST_WINDOW = max(WINDOW, NO_REWARD_STEPS, SPIKE_WINDOW)
"""The largest number of steps that any check looks back at."""
