"""A software security processor and SVSM, for development and tests. Never passes for hardware."""
