"""A message as octets: blob, header, trace fields, DSN."""
