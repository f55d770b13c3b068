"""Architectures of sequences: text, speech, signals."""
