"""What a robot is asked to do: one folder per task."""
