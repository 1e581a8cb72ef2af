"""POP3 without sockets (RFC 1939)."""
