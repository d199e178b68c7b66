"""Overviews of a raster table that grows: the same pixels, larger, in tables beside it, as PostGIS and GDAL know them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import psycopg
from psycopg import sql

from .. import runs
from ..errors import LoadError
from ..postgres import catalog
from ..postgres.connecting import Connection
from ..template import compose

FACTORS = (2, 4, 8, 16, 32, 64, 128)  # of which pixels end where blocks do: PostGIS makes them block by block


def overview_of(name: str, factor: int) -> str:
    """What an overview of a table is called, as PostGIS does."""
    return f"o_{factor}_{name}"


@dataclass(frozen=True)
class Overviews:
    """The overviews of a table. block: pixels a side of their rasters."""

    schema: str
    name: str
    block: int

    @property
    def text(self) -> str:
        """The table's schema and name, quoted."""
        return sql.Identifier(self.schema, self.name).as_string(None)

    def there(self, conn: Connection) -> dict[int, tuple[str, str]]:
        """Schema and name of those that are there, by their factors."""
        found = catalog.overviews(lambda statement: conn.execute(statement).fetchall(), self.schema, self.name)
        return {factor: (schema, name) for schema, name, _, factor in found}

    def require(self, conn: Connection, wanted: Collection[int]) -> None:
        """Raise where they could not be made in the end, by whatever stands in the way: found now, not after hours."""
        there = self.there(conn)
        hidden = conn.execute(compose("overviews_hidden", schema=self.schema, table=self.name)).fetchall()
        new = [sql.Identifier(self.schema, overview_of(self.name, factor)) for factor in {*wanted} - there.keys()]
        for overview in new:
            kind, _, lacking, _ = runs.there(conn, named := overview.as_string(None))
            if kind and "SELECT" not in lacking:
                raise LoadError(f"{named} is there already, and is no overview of {self.text}: drop it, or make others")
        with conn.transaction() as trial:
            for names in (*there.values(), *((self.schema, name) for (name,) in hidden)):
                conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(*names)))
            for overview in new:
                conn.execute(sql.SQL("CREATE TABLE {} ()").format(overview))
            raise psycopg.Rollback(trial)

    def make(self, conn: Connection, factors: Collection[int], *, smooth: bool) -> None:
        """Make these, and those that are there anew, which keep their grants. smooth: means of pixels, not one of them."""
        there, table = self.there(conn), sql.Identifier(self.schema, self.name)
        for factor in sorted({*factors, *there}):
            schema, name = there.get(factor, (self.schema, overview_of(self.name, factor)))
            overview, grants = sql.Identifier(schema, name), list[tuple[str]]()
            if factor in there:
                named = overview.as_string(None)
                grants = conn.execute(compose("grants", table=named, new=named)).fetchall()
                conn.execute(sql.SQL("DROP TABLE {}").format(overview))
            slots = {"algorithm": sql.Literal("Bilinear" if smooth else "NearestNeighbour"), "text": sql.Literal(self.text)}
            conn.execute(compose("overview_table", overview=overview, table=table, factor=factor, block=self.block, **slots))
            conn.execute(compose("raster_constraints", schema=schema, name=name))
            conn.execute(compose("overview_of", schema=schema, overview=name, of=self.schema, table=self.name, factor=factor))
            conn.execute(compose("raster_index", table=overview))
            for (grant,) in grants:
                conn.execute(grant.encode())
