"""Measures Conveyor against what a developer would otherwise write, in one run on one machine: ``python -m bench``."""
