"""What can go together: small models tried on shapes alone, until one is the planned one."""
