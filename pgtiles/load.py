"""Files into tables. A load is all or nothing: one that fails, or is interrupted, leaves the database as it was."""

from .loading.chiptable import Chips, chips
from .loading.newtable import Loaded
from .loading.osmtables import osm
from .loading.rastertable import raster
from .loading.sampletables import Samples, sample
from .loading.vectortable import vector

__all__ = ["Chips", "Loaded", "Samples", "chips", "osm", "raster", "sample", "vector"]
