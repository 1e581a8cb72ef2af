"""Drivers: one connection of each protocol."""
