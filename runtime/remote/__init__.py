"""A robot in another process: the wire protocol, its two ends, keys and link conditions."""
