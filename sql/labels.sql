-- Vector labels of the batch's tiles, burned on each tile's own pixels.
-- slots: layer (its number), source (user_query.sql), geometry (of a row, in the tiles' SRID, buffered where asked), value,
--        priority (of a row), area_box (what areas may be clipped to), line_box (what a line's segments must touch), touched
-- rows: tile, layer, n (the order to paste in), value, fragment: one raster per value, a mask (1 burned, 0 nodata) as large as
--       the burned features
-- index: whatever serves the user's condition on her geometry column
-- Areas are clipped, which costs least and moves no pixel. Of lines only whole segments are left out: to cut one would move its
-- pixels. What lies wholly inside is left alone. Rows of equal priority and value can be burned in any order, so together.
SELECT
    f.tile,
    {layer}::int2 AS layer,
    f.n::int4 AS n,
    f.value::float8 AS value,
    ST_AsRaster(
        f.geom, (SELECT t.ref FROM tiles AS t WHERE t.n = f.tile), '8BUI'::text, 1, 0, {touched}
    )::bytea AS fragment
FROM (
    SELECT
        b.tile,
        b.value,
        row_number() OVER (PARTITION BY b.tile ORDER BY b.priority, b.value) AS n,
        ST_Collect(b.geom) AS geom
    FROM (
        SELECT
            g.tile, g.value, g.priority,
            CASE
                WHEN g.geom @ {area_box} THEN g.geom
                WHEN g.kind IN ('POLYGON', 'MULTIPOLYGON', 'POINT', 'MULTIPOINT') THEN ST_ClipByBox2D(g.geom, {area_box})
                WHEN g.kind IN ('LINESTRING', 'MULTILINESTRING') THEN (
                    SELECT ST_Collect(s.geom) FROM ST_DumpSegments(g.geom) AS s WHERE s.geom && {line_box}
                )
                ELSE g.geom
            END AS geom
        FROM (
            SELECT
                r.n AS tile, r.envelope, r.ref, r.value, r.priority, r.geom, GeometryType(r.geom) AS kind
            FROM (
                SELECT
                    tile.n, tile.envelope, tile.ref,
                    {value} AS value, {priority} AS priority, {geometry} AS geom
                FROM {source}
            ) AS r
            OFFSET 0
        ) AS g
    ) AS b
    WHERE NOT ST_IsEmpty(b.geom)
    GROUP BY b.tile, b.priority, b.value
    ORDER BY b.tile, n
    OFFSET 0
) AS f
