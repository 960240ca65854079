"""The nodes of the hub: what links attach to. Each file has a family of addresses."""
