"""Sensors of other programs on this computer: their values join a robot's observations."""
