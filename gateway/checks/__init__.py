"""Checks: how facts are learnt that must be fetched, each with its deadline and its way to fail."""
