-- The rasters of one tile's time steps: which acquisitions there are, which of them are taken, and what they consist of.
-- slots: source (stored_blocks.sql or rasters_of_query.sql, with step_time), near (what acquisitions are ranked by), every (of the
--        ranked ones each n-th is taken), steps (how many at most), edge (a tenth of a tile's pixel as a share of its side),
--        stride (canvas.STRIDE)
-- rows: rast, place (1 on top within a step, less stride times the step's number from 1, so that its negative is the n of a
--       row), step (from 1, by ascending time), seconds (since 1970 in UTC)
-- index: see source
-- Rasters of equal time are one acquisition; those whose time is NULL, 'infinity' or '-infinity' are none. It counts where one of its rasters has ground in common with the tile: the search
-- also finds neighbours that merely touch it, as && compares float4 boxes, and those that only a resampling kernel would reach.
-- A raster's header, where its ground is told, lies in TOAST. So acquisitions are looked at one after the other, in the order in
-- which they are wanted, until there are enough: OFFSET and the aggregate keep the planner from looking at all of them at once.
-- The source comes first, where no name of ours can stand before a table's.
WITH source AS MATERIALIZED (
{source}
),
core AS MATERIALIZED (
    SELECT ST_Buffer(
        tile.geom,
        -{edge}::float8 * least(ST_XMax(tile.geom) - ST_XMin(tile.geom), ST_YMax(tile.geom) - ST_YMin(tile.geom))
    ) AS geom
),
met AS MATERIALIZED (
    SELECT a.step_time, a.rank
    FROM (
        SELECT t.step_time, row_number() OVER (ORDER BY {near}) AS rank
        FROM (SELECT DISTINCT q.step_time FROM source AS q WHERE q.rast IS NOT NULL AND isfinite(q.step_time)) AS t
        ORDER BY 2
        OFFSET 0
    ) AS a
    WHERE (
        SELECT bool_or(ST_Intersects(ST_ConvexHull(q.rast::raster), core.geom))
        FROM source AS q CROSS JOIN core
        WHERE q.step_time = a.step_time
    )
    ORDER BY a.rank
    LIMIT ({steps}::int8 - 1) * {every}::int8 + 1
)
SELECT
    q.rast, q.place - {stride}::int4 * s.step AS place, s.step::int4 AS step, extract(epoch FROM s.step_time)::float8 AS seconds
FROM (
    SELECT r.step_time, row_number() OVER (ORDER BY r.step_time) AS step
    FROM (SELECT m.step_time, row_number() OVER (ORDER BY m.rank) - 1 AS rank FROM met AS m) AS r
    WHERE r.rank % {every}::int4 = 0
) AS s
JOIN source AS q ON q.step_time = s.step_time
WHERE q.rast IS NOT NULL
