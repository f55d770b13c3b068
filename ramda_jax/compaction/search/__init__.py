"""What can be deleted together: small models are tried on shapes alone, until one is the planned one."""
