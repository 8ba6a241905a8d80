"""Simulators, tasks and the simulated robots that are made of one of each."""
