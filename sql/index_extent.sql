-- Where the features of a table lie, as a box in another SRID: by the box at the top of its index, without a look at the rows.
-- What was deleted counts until VACUUM: the box may be too large, and is never too small.
-- slots: schema, name, column, source_srid (of the column), srid (of the box)
-- rows: xmin, ymin, xmax, ymax; NULL where the index knows nothing
-- index: GiST on column, of which one page is read
SELECT ST_XMin(b.box), ST_YMin(b.box), ST_XMax(b.box), ST_YMax(b.box)
FROM (
    SELECT ST_Transform(ST_Segmentize(e.box, greatest(ST_XMax(e.box) - ST_XMin(e.box), 1e-9) / 32), {srid}::int4) AS box
    FROM (
        SELECT ST_SetSRID(ST_EstimatedExtent({schema}, {name}, {column})::geometry, {source_srid}::int4) AS box
    ) AS e
) AS b
