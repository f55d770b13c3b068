"""From sparse to small."""
