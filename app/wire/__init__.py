"""Byte formats of SEV-SNP, SVSM and TPM: bytes in, frozen value or WireError out.

Standard library only; no I/O, clock or settings. `encode` is the inverse of `parse`. Text comes in
by `b64` alone, which raises ValueError like the library that it narrows.
"""
