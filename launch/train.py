"""`gatort train`."""


def train() -> int:
    """Not there yet."""
    return 0
