-- The different kinds of raster among the first rows of a relation, from the rasters' own headers: constraints may be missing
-- (raster_columns then says SRID 0 and no scale), and they call a table that stands on its head aligned.
-- slots: column and relation to look at (a table, or a query in brackets), key (text that names a row s), sample (how many rows),
--        name (of the table; NULL of a query), constraints (the names of those that say what all of its rasters have in common)
-- rows: SRID, scale x, y, skew x, y (CRS units per pixel), pixel types of the bands, nodata values of the bands, how many of
--       the sampled rows are so, upper left x, y and key of one of them, whether any band is kept outside the database
-- index: none; the sample bounds the work. Of each raster all is read, to the last band: a thousand take a quarter of a second.
--        Where the table's constraints say that all are alike, one tells of all.
SELECT
    k.srid, k.scale_x, k.scale_y, k.skew_x, k.skew_y, k.types, k.nodata, count(*)::int8,
    (array_agg(k.x))[1], (array_agg(k.y))[1], (array_agg(k.key))[1], bool_or(k.out_db)
FROM (
    SELECT
        ST_SRID(r.rast) AS srid,
        ST_ScaleX(r.rast) AS scale_x, ST_ScaleY(r.rast) AS scale_y,
        ST_SkewX(r.rast) AS skew_x, ST_SkewY(r.rast) AS skew_y,
        ST_UpperLeftX(r.rast) AS x, ST_UpperLeftY(r.rast) AS y,
        r.key, b.types, b.nodata, b.out_db
    FROM (
        SELECT {column} AS rast, {key} AS key FROM {relation} AS s WHERE {column} IS NOT NULL LIMIT (
            SELECT CASE WHEN count(*) = cardinality({constraints}::text[]) THEN 1 ELSE {sample}::int8 END
            FROM pg_constraint AS c
            WHERE c.conrelid = to_regclass({name}::text) AND c.contype = 'c' AND c.convalidated
                AND c.conname = ANY ({constraints}::text[])
        )
    ) AS r
    CROSS JOIN LATERAL (
        SELECT
            array_agg(m.pixeltype ORDER BY m.bandnum) AS types,
            array_agg(m.nodatavalue ORDER BY m.bandnum) AS nodata,
            bool_or(m.isoutdb) AS out_db
        FROM ST_BandMetaData(r.rast, ARRAY(SELECT generate_series(1, ST_NumBands(r.rast)))) AS m
    ) AS b
    OFFSET 0
) AS k
GROUP BY k.srid, k.scale_x, k.scale_y, k.skew_x, k.skew_y, k.types, k.nodata
ORDER BY 8 DESC
