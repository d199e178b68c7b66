-- The features of the batch's tiles, each burned by itself on its tile's own pixels.
-- slots: layer (its number), source (user_query.sql), geometry (of a row, in the tiles' SRID), value, id, priority (of a row),
--        numbered (whether the query gives ids), clipped (clipped.sql), singles (singles.sql)
-- rows: tile, layer, n (the order to paste in: the feature's number in its tile times 3, and the dimension of what is burned),
--       value (the label), data: the id (int8), then a fragment, a mask (1 burned, 0 nodata) as large as the burned feature
-- index: whatever serves the user's condition on her geometry column
-- Burned as in labels.sql, without the SRID, the areas, lines and points of a collection apart. By ascending priority, and the
-- smaller on top of the larger.
SELECT
    b.tile,
    {layer}::int2 AS layer,
    (b.number * 3 + b.dimension)::int4 AS n,
    b.value::float8 AS value,
    coalesce(
        int8send(CASE WHEN {numbered} THEN b.id::int8 ELSE b.number END)
        || (
            SELECT ST_SetSRID(
                ST_AsRaster(ST_SetSRID(b.geom, 0), ST_SetSRID(t.ref, 0), '8BUI'::text, 1, 0, false), ST_SRID(t.ref)
            )::bytea
            FROM tiles AS t
            WHERE t.n = b.tile
        ),
        ''::bytea
    ) AS data
FROM (
    SELECT
        c.tile, c.number, c.dimension, c.value, c.id, ST_CollectionHomogenize(ST_Collect(c.geom)) AS geom
    FROM (
        SELECT
            g.tile, g.number, g.dimension, g.value, g.id,
            {clipped} AS geom
        FROM (
            SELECT f.tile, f.envelope, f.number, f.value, f.id, ST_Dimension(d.geom) AS dimension, d.geom
            FROM (
                SELECT
                    r.*,
                    row_number() OVER (
                        PARTITION BY r.tile
                        ORDER BY r.priority, ST_Area(r.geom) DESC, ST_Length(r.geom) DESC, r.id, r.geom, r.value
                    ) AS number
                FROM (
                    SELECT
                        tile.n AS tile, tile.envelope,
                        {value} AS value, {id} AS id, {priority} AS priority, {geometry} AS geom
                    FROM {source}
                    OFFSET 0
                ) AS r
            ) AS f
            CROSS JOIN LATERAL {singles} AS d
            OFFSET 0
        ) AS g
    ) AS c
    WHERE NOT ST_IsEmpty(c.geom)
    GROUP BY c.tile, c.number, c.dimension, c.value, c.id
    ORDER BY c.tile, c.number, c.dimension
    OFFSET 0
) AS b
