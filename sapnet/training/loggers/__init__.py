"""Loggers for metrics and pictures."""
