"""Neighbouring problems: barycenters, sparse recovery, sensing."""
