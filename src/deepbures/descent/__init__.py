"""Gradient descent on all layers, and scaled descent."""
