"""The page at `/`: sign-in, static files, and what happens in the hub as it happens."""
