"""How the leaves' subproblems are run: their order, batches, tiles, and compilation in eager use."""
