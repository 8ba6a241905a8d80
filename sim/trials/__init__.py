"""Seeded trials of a policy in lockstep: running, keeping, counting and varying them."""
