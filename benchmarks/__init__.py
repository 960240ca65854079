"""How fast the emulator is, beside its peers: `python -m benchmarks`."""
