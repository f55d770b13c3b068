"""Whether units may be put in another order in each layer of a stack: what is moved is followed through the program."""
