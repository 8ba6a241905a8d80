"""Put the red block on the blue one."""
