"""What a domain publishes in DNS about its mail: what it should, and what is wrong with what it does."""
