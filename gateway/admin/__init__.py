"""Pages for people, as an ASGI application."""
