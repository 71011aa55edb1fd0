"""Gradient flow of the end-to-end matrix: collocation, explicit methods, paths."""
