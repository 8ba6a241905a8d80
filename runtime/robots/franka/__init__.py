"""Franka's arm and hand: the control interface, the inner loop at 1 kHz, and the driver."""
