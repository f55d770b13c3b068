"""That nothing has changed: two traces and their outputs side by side."""
