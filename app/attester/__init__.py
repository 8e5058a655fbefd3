"""The attester role: nonce rules, evidence out, the EK of the last attestation."""
