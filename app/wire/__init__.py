"""Byte formats of SEV-SNP, SVSM and TPM: bytes in, frozen value or WireError out.

Standard library only; no I/O, clock or settings. `encode` is the inverse of `parse`.
"""
