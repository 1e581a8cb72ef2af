"""The resolver: DNS answers as values, cached, with deadlines."""
