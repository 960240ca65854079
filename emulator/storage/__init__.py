"""Blob containers: folders, and containers of a storage account."""
