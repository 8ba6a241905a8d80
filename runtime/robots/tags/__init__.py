"""Poses of cubes from printed tags on their faces, seen by calibrated cameras."""
