"""Automatic device management: configurations, and the deployments of IoT Edge devices."""
