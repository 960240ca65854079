"""The foundation of every feature of the hub. It imports no other part of the hub."""
