"""Measurements that no test asserts: times and memory depend on the machine."""
