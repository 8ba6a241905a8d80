"""The loop and everything the robot's computer needs; no torch and no simulator at import."""
