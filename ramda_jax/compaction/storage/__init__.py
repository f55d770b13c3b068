"""A compact model on disk."""
