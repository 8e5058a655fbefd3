"""IGVM: the file that a launch stack reads the first memory of a confidential VM from."""
