"""Wording of counts in sentences."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count and its noun, such as "1 miss" or "1200 ticks".

    Args:
        count: number of things.
        noun: name of one thing.
        plural: name of several things. Default: the noun with an s.
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
