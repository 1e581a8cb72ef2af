"""Frozen values and the Protocols of the outside world; imports nothing of ours."""
