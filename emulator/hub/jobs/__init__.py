"""Scheduled jobs, over the devices that a condition finds."""
