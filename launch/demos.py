def demos() -> int:
    return 0
