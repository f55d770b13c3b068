"""How the leaves' subproblems are run: in which order, in batches, in tiles, compiled in eager use."""
