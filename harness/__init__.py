"""Executable claims about interatomic potentials: data, subjects, procedures, evidence, reports."""

__version__ = "0.1.0"
