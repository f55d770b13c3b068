"""Living with the small model: training that goes on, groups that span layers, and the report."""
