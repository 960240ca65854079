"""Who may do what, and how much: keys, SAS tokens, policies, certificates, throttles."""
