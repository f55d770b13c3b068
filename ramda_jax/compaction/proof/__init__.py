"""The proof that nothing has changed: it compares two traces and their outputs."""
