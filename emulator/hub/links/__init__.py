"""Connected devices, and the presence of each identity."""
