"""Structured log, every metric once, the decision recorder."""
