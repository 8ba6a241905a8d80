"""`gatort export`."""


def export() -> int:
    """Not there yet."""
    return 0
