-- The relation tile for a layer whose source lies in the tiles' own SRID: nothing to compute, the planner sees through it.
-- slots: none
-- rows: n, id, ref, time as in tiles.sql; geom, the envelope to search with; rast, ref with a band of zeros, for the user;
--       envelope, the tile's own
(
    SELECT
        n, id, geom, ST_AddBand(ref, '8BUI'::text) AS rast, ref, time, geom AS envelope,
        NULL::float8 AS metre_x, NULL::float8 AS metre_y
    FROM tiles
)
