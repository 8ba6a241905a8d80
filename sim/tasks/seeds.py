"""Ranges of seeds that never meet, the same for every task.

Trials are reported. The other ranges are for learning.
"""

from typing import Final

TRIAL_SEEDS: Final = range(900_000)
"""Seeds of trials whose success rate is reported."""
VALIDATION_SEEDS: Final = range(900_000, 1_000_000)
"""Seeds to tune on: checkpoints, recipes, calibration."""
TRAINING_SEEDS: Final = range(1_000_000, 2_000_000)
"""Seeds of demonstrations and of a policy's own rollouts."""
