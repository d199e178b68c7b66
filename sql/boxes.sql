-- The boxes of the features in the batch's tiles, in pixels: x to the right and y down from each tile's upper left corner.
-- slots: layer (its number), source (user_query.sql), geometry (of a row, in the tiles' SRID), value, id (of a row), numbered
--        (whether the query gives ids), singles (singles.sql), min_overlap, scale_x, scale_y (CRS units a pixel), width, height (pixels)
-- rows: tile, layer, n (the order of the boxes), value (the label), data: x0, y0, x1, y1 (float8) and the id (int8)
-- index: whatever serves the user's condition on her geometry column
-- The box is that of the feature's part inside the tile, and not the feature's box cut at the edge: they differ where it is
-- concave. Parts are cut one by one, because not every GEOS intersects collections. What lies wholly inside is not cut, and told
-- so by its own coordinates, for the operator @ compares float4 boxes, half a metre off in EPSG:3857. What is cut is first made
-- valid, or GEOS would refuse it (ST_IsValid would send a NOTICE for each). An area that only touches the edge has no area
-- inside and is left out; so is a sliver that is too thin to have an extent in float4.
SELECT
    k.tile,
    {layer}::int2 AS layer,
    k.n::int4 AS n,
    k.value::float8 AS value,
    float8send(k.x0) || float8send(k.y0) || float8send(k.x1) || float8send(k.y1)
    || coalesce(int8send(CASE WHEN {numbered} THEN k.id::int8 ELSE k.n END), ''::bytea) AS data
FROM (
    SELECT
        b.*,
        row_number() OVER (PARTITION BY b.tile ORDER BY b.id, b.geom, b.value) AS n
    FROM (
        SELECT
            f.tile, f.value, f.id, f.geom, p.dimension,
            least(greatest((p.xmin - f.left_x) / {scale_x}::float8, 0), {width}::float8) AS x0,
            least(greatest((f.top_y - p.ymax) / {scale_y}::float8, 0), {height}::float8) AS y0,
            least(greatest((p.xmax - f.left_x) / {scale_x}::float8, 0), {width}::float8) AS x1,
            least(greatest((f.top_y - p.ymin) / {scale_y}::float8, 0), {height}::float8) AS y1
        FROM (
            SELECT
                tile.n AS tile, tile.envelope, ST_XMin(tile.envelope) AS left_x, ST_YMax(tile.envelope) AS top_y,
                {value} AS value, {id} AS id, {geometry} AS geom
            FROM {source}
            OFFSET 0
        ) AS f
        CROSS JOIN LATERAL (
            SELECT
                max(i.dimension) FILTER (WHERE NOT ST_IsEmpty(i.inside)) AS dimension,
                min(ST_XMin(i.inside)) AS xmin, min(ST_YMin(i.inside)) AS ymin,
                max(ST_XMax(i.inside)) AS xmax, max(ST_YMax(i.inside)) AS ymax,
                CASE
                    WHEN sum(ST_Area(i.geom)) > 0 THEN sum(ST_Area(i.inside)) / sum(ST_Area(i.geom))
                    WHEN sum(ST_Length(i.geom)) > 0 THEN sum(ST_Length(i.inside)) / sum(ST_Length(i.geom))
                    ELSE 1
                END AS share
            FROM (
                SELECT
                    v.dimension, v.geom,
                    CASE
                        WHEN v.whole THEN v.geom
                        ELSE ST_CollectionExtract(ST_Intersection(v.geom, f.envelope), v.dimension + 1)
                    END AS inside
                FROM (
                    SELECT
                        ST_Dimension(d.geom) AS dimension, d.whole,
                        CASE WHEN d.whole OR (ST_IsValidDetail(d.geom)).valid THEN d.geom ELSE ST_MakeValid(d.geom) END AS geom
                    FROM (
                        SELECT
                            d.geom,
                            ST_XMin(d.geom) >= ST_XMin(f.envelope) AND ST_XMax(d.geom) <= ST_XMax(f.envelope)
                            AND ST_YMin(d.geom) >= ST_YMin(f.envelope) AND ST_YMax(d.geom) <= ST_YMax(f.envelope) AS whole
                        FROM {singles} AS d
                        OFFSET 0
                    ) AS d
                    OFFSET 0
                ) AS v
                OFFSET 0
            ) AS i
        ) AS p
        WHERE p.xmin IS NOT NULL AND p.share >= {min_overlap}::float8
        OFFSET 0
    ) AS b
    WHERE b.dimension < 2 OR (b.x0::float4 < b.x1::float4 AND b.y0::float4 < b.y1::float4)
) AS k
ORDER BY k.tile, k.n
