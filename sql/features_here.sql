-- Where, within a box, a table has features: a table that has none there is no label for the imagery there.
-- slots: table, column, srid (of the column), xmin, ymin, xmax, ymax and box_srid (the box)
-- rows: one: xmin, ymin, xmax, ymax in the box's SRID of what is there; NULL where nothing is
-- index: GiST on column; the limit bounds the work where it finds a country
SELECT ST_XMin(e.box), ST_YMin(e.box), ST_XMax(e.box), ST_YMax(e.box)
FROM (
    SELECT ST_Extent(ST_Transform(f.geom, {box_srid}::int4)) AS box
    FROM (
        SELECT ST_Envelope(t.{column}) AS geom
        FROM {table} AS t
        WHERE t.{column} && ST_Transform(
            ST_MakeEnvelope({xmin}::float8, {ymin}::float8, {xmax}::float8, {ymax}::float8, {box_srid}::int4), {srid}::int4
        )
        LIMIT 20000
    ) AS f
) AS e
