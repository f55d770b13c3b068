"""Finds what can be deleted together: it tries small models on shapes alone, until one is the planned one."""
