"""Covariances and samples from files."""
