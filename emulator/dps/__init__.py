"""The Device Provisioning Service: it assigns devices to hubs, this one or others."""
