"""Logging, metrics and request ids. Knows nothing of what is attested."""
