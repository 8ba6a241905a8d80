"""RGB stacking: put the red block on the blue one."""
