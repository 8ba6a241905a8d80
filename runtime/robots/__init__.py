"""Arms that this process drives: the driver contract, and the Franka arm with its hand."""
