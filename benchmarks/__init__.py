"""Measurements of time and memory. They depend on the machine and are not asserted by tests."""
