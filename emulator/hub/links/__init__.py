"""The connected devices, and when each identity was last active."""
