"""The vTPM as the guest reaches it: keys that are made once, quotes, answers to a verifier's challenges."""
