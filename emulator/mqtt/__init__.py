"""The MQTT head: devices connect here, with MQTT 3.1.1."""
