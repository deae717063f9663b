"""Jupyter for supercomputers, on a cluster nobody had to change."""
