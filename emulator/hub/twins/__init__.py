"""The twin as a value: merge, metadata, versions, validation."""
