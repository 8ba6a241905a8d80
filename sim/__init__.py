"""The stacking task, its simulated robots and the scripted expert."""
