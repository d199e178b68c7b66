"""The command ``pgtiles``."""
