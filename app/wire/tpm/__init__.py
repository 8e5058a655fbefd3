"""TPM 2.0 structures, big-endian (TCG TPM 2.0 Library, Part 2)."""
