"""Ordered rules over facts: loading, expressions, the engine."""
