"""AMQP 1.0: types, frames and messages of the standard, and the server's side of a connection."""
