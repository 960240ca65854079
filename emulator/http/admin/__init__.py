"""The routes of the emulator's own, below `/_emulator/`: a real hub does not have them."""
