"""What changes in the hub, as events in the event log."""
