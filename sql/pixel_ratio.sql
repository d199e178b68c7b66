-- How large a tile's pixel is where it falls in a source raster: for the margin that a resampling kernel needs.
-- slots: x, y (upper left corner of a tile), scale_x, scale_y (its pixel, CRS units), srid, source_srid
-- rows: width and height, in the source's CRS units, of the box around one tile pixel
SELECT ST_XMax(p.box) - ST_XMin(p.box), ST_YMax(p.box) - ST_YMin(p.box)
FROM ST_Transform(
    ST_MakeEnvelope({x}::float8, {y}::float8 - {scale_y}::float8, {x}::float8 + {scale_x}::float8, {y}::float8, {srid}::int4),
    {source_srid}::int4
) AS p (box)
