"""Real cameras: stamped pictures from devices, files and streams join an arm's observations."""
