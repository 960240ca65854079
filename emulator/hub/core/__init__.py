"""What every feature of the hub stands on. It imports nothing else of the hub."""
