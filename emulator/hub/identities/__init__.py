"""Devices and modules as values: credentials, etags, scopes."""
