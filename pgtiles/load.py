"""Files into tables. A load is all or nothing: one that fails, or is interrupted, leaves the database as it was."""

from .newtable import Loaded
from .osmtables import osm
from .rastertable import raster
from .sampletables import Samples, sample
from .vectortable import vector

__all__ = ["Loaded", "Samples", "osm", "raster", "sample", "vector"]
