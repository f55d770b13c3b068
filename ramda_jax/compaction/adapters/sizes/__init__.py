"""The sizes that layers remember, as their smaller arrays give them, and other numbers of modules."""
