"""Files into tables. A load is all or nothing: one that fails, or is interrupted, leaves the database as it was."""

from .chiptable import Chips, chips
from .newtable import Loaded
from .osmtables import osm
from .rastertable import raster
from .sampletables import Samples, sample
from .vectortable import vector

__all__ = ["Chips", "Loaded", "Samples", "chips", "osm", "raster", "sample", "vector"]
