"""Messages: the device-to-cloud log, cloud-to-device queues, and their feedback."""
