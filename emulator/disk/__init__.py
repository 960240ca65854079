"""The state of a hub on the disk: one SQLite file."""
