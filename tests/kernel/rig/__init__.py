"""The rig of `make kernel-test`: a virtual machine with a real kernel's configfs-tsm, no SEV-SNP needed."""
