"""What is known of values for every input: which of their indices are zero, and which are constant."""
