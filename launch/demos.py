"""`gatort demos`."""


def demos() -> int:
    """Not there yet."""
    return 0
