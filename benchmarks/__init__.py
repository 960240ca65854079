"""How fast the emulator is: `python -m benchmarks.<name>`."""
