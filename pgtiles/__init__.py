"""pgtiles: an in-database data loader for geospatial deep learning."""

__version__ = "0.1.0"
