"""A hub from a file: what the file can hold, how it is read, and how it is applied to a hub."""
