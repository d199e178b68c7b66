-- The user's own query beside a relation tile, with the guard.
-- slots: query (her text, verbatim), tile (tile_here.sql or tile_reach.sql)
-- rows: tile.*, u.* (her columns), to be selected from
-- The guard has the same columns as tile. So a column that her table lacks (geom, where it is called way) is ambiguous and an
-- error, where it would otherwise be found in tile and burn the whole tile. Inside, tile is the one tile at hand, and
-- FROM roads, tile means just it. The planner flattens all of it.
{tile} AS tile
CROSS JOIN (
    SELECT
        NULL::int4 AS n, NULL::int8 AS id, NULL::geometry AS geom, NULL::raster AS rast, NULL::raster AS ref,
        NULL::timestamptz AS time, NULL::geometry AS envelope, NULL::float8 AS metre_x, NULL::float8 AS metre_y
) AS guard
CROSS JOIN LATERAL (
    WITH tile AS (SELECT tile.id, tile.geom, tile.rast, tile.time)
    SELECT * FROM (
{query}
    ) AS u
) AS u
