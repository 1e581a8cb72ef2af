"""The message store's files and its index."""
