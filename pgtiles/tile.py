"""The relation ``tile`` for label queries written with SQLAlchemy: ``func.ST_DWithin(roads.c.way, pgtiles.tile.geom, 6)``.

The columns are typed literals. As columns of a table they would put ``tile`` into FROM a second time.
"""

from geoalchemy2 import Geometry, Raster
from sqlalchemy import BigInteger, DateTime, literal_column

id = literal_column("tile.id", BigInteger)  # noqa: A001 - it is called so in SQL
geom = literal_column("tile.geom", Geometry)
rast = literal_column("tile.rast", Raster)
time = literal_column("tile.time", DateTime(timezone=True))
