"""What a real kernel's configfs-tsm did, as a table, and the same probing on any other one.

Recorded on Linux 6.12.95 with the stock tsm module and a stand-in provider that refuses what
sev_report_new() refuses at VMPL 2. The emulation in tests/fakes has to give these answers, and
so has every kernel the attester runs on.
"""
