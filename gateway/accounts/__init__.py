"""Who exists here: directory, aliases, credentials."""
