"""Access to the hub, and its quotas: keys, SAS tokens, policies, certificates, throttles."""
