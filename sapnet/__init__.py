"""Motion deblurring with content-aware modules and adaptive sampling (Suin, Purohit, Rajagopalan)."""

__version__ = "0.1.0"
