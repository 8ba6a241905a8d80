"""Recordings: their contents, their writing, their reading and their replay."""
