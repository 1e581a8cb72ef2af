"""Mail that policies keep back: told in digests, looked at, released."""
