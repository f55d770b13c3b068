"""Facts about values that hold for every input: which of their indices are zero, and which are constant."""
