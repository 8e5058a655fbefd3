"""svsm-attest: attestation and verification of the vTPM of an AMD SEV-SNP confidential VM."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("svsm-attest")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
