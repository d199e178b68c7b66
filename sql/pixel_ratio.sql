-- How large a tile's pixel is where it falls in a source raster: for the margin that a resampling kernel needs.
-- slots: xs, ys (places in the tiles' CRS), scale_x, scale_y (a tile's pixel, CRS units), srid, source_srid
-- rows: one: least and greatest width, least and greatest height, in the source's CRS units, of the boxes around a pixel there
SELECT
    min(ST_XMax(p.box) - ST_XMin(p.box)), max(ST_XMax(p.box) - ST_XMin(p.box)),
    min(ST_YMax(p.box) - ST_YMin(p.box)), max(ST_YMax(p.box) - ST_YMin(p.box))
FROM unnest({xs}::float8[], {ys}::float8[]) AS t (x, y)
CROSS JOIN LATERAL ST_Transform(
    ST_MakeEnvelope(
        t.x - {scale_x}::float8 / 2, t.y - {scale_y}::float8 / 2, t.x + {scale_x}::float8 / 2, t.y + {scale_y}::float8 / 2,
        {srid}::int4
    ),
    {source_srid}::int4
) AS p (box)
