"""Trials as an experiment: planned, locked, run in a random order, judged by the planned test."""
