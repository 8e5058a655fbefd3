"""Endorsements: is this key AMD's, for this chip and this TCB? Knows no policy."""
