"""Appraisal: evidence, endorsements, policy and time in; findings, claims and a verdict out.

No network and no clock: endorsements and time are arguments.
"""
