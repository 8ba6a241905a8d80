"""The policy: its model in one file, its presets, its demonstrations and its training."""
