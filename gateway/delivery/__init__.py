"""Where a recipient goes, and one attempt to get there."""
