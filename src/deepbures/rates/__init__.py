"""Rates of convergence, predicted and measured; plateau times; sampling error."""
