"""Where evidence comes from: the EvidenceBackend protocol and its implementations. Judges nothing."""
