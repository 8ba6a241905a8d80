"""Follow a moving target with the tool."""
