"""Faults of a Franka arm, on franka-sim: a simulator that speaks the arm's own protocol."""
