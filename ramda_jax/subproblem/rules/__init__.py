"""Which leaf gets which solver and which strength, by the patterns that a user gives."""
