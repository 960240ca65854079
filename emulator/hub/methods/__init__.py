"""Direct methods: requests, and the calls that wait for a response."""
