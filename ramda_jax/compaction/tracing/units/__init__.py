"""Units, which zeros can remove: who reads them, along which axes of which leaves, and in which groups."""
