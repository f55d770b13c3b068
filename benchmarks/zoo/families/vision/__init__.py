"""Architectures that see images."""
