"""Symmetric positive semidefinite matrices: roots, powers, resolvents, eigenbases. It knows no loss."""
