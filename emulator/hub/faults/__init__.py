"""Faults on demand: what a test breaks in the hub on purpose."""
