"""What all heads share: listeners, byte streams, WebSockets, TLS and certificates."""
