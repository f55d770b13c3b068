"""Whether each layer of a stack may have its own order of units: the moved entries are followed through the program."""
