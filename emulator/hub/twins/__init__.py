"""Twins as values: merge, metadata, versions, validation."""
