"""IMAP4rev1 without sockets."""
