"""Responsibility for a message: intake, claims, retry plan, bounce."""
