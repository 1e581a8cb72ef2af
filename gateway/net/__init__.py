"""Listening sockets, TLS contexts, the PROXY header."""
