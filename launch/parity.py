"""`gatort parity`."""


def parity() -> int:
    """Not there yet."""
    return 0
