"""The head that services come in by: the hub's REST API on aiohttp."""
