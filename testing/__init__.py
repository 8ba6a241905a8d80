"""Contracts that every robot, engine and task keeps, as pytest classes to inherit from."""
