"""Each kind of model: how it is called, rebuilt on smaller arrays, and given factors for a matrix."""
