"""Jobs: scheduled ones, over the devices that a condition finds, and import and export jobs."""
