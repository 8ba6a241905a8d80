"""A person drives the arm in the place of the policy, through the same loop and guard."""
