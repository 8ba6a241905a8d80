"""Roofline: the least time that a tick can take on a machine, and the share of it that was
reached.
"""
