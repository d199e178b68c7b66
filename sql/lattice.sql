-- Where the pixels of a source lie: on its own lattice.
-- slots: srid, origin_x, origin_y, scale_x, scale_y (CRS units)
-- row: srid; x, y, scale_x, scale_y, skew_x, skew_y: of the geotransform that takes columns and rows of the lattice to its CRS
(
    SELECT
        {srid}::int4 AS srid, {origin_x}::float8 AS x, {origin_y}::float8 AS y,
        {scale_x}::float8 AS scale_x, {scale_y}::float8 AS scale_y, 0::float8 AS skew_x, 0::float8 AS skew_y
)
