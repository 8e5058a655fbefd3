"""The TPM client: commands out, answers in, one at a time. Knows nothing of reports or policy."""
