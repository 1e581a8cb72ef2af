"""The only SQL in the tree, the spool, and counters shared by the processes."""
