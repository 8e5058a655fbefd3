"""The verifier role: gather endorsements, appraise, record. Knows no evidence backend."""
