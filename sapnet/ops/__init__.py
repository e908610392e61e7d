"""The filter at points, the one operator no library gives us."""
