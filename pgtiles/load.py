"""Files into tables. A load is all or nothing: one that fails, or is killed, leaves the database as it was."""

from .newtable import Loaded
from .rastertable import raster
from .vectortable import vector

__all__ = ["Loaded", "raster", "vector"]
