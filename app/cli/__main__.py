"""`python -m app.cli` is `svsm-attest`."""

from app.cli import main

main()
