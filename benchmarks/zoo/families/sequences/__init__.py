"""Architectures for sequences: text, speech, signals."""
