"""Checks of the repository itself: structure, English and figures. Standard library only."""
