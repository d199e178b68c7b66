-- Where the pixels of a source lie in the tiles' own CRS, near one tile: a reprojection is affine there, as far as a pixel sees.
-- stands in warped.sql, as the place of the joined raster
-- slots: lattice (lattice.sql, of the source), srid (of the tiles), tolerance (source pixels by which a point may be off)
-- row: as of lattice.sql; the source's own where the tolerance is not met
-- To get ready for a reprojection costs as much as to resample a tile: GDAL asks PROJ's database anew for each raster. Across
-- some hundred metres a reprojection departs from an affine map by some thousandths of a pixel. So nine points of the tile, its
-- corners, the middles of its edges and its centre, are reprojected as a geometry, for which PostGIS keeps PROJ ready. The least
-- squares through them are the geotransform that makes the source a turned raster of the tiles' CRS, which GDAL need only resample.
-- What a map has besides, mostly quadratic, departs furthest at those very points.
(
    WITH lattice AS (
        SELECT * FROM {lattice} AS l
    ),
    tile AS (
        SELECT
            b.xmin, b.xmax, b.ymin, b.ymax, (b.xmin + b.xmax) / 2 AS x, (b.ymin + b.ymax) / 2 AS y
        FROM (
            SELECT
                ST_XMin(this.envelope) AS xmin, ST_XMax(this.envelope) AS xmax,
                ST_YMin(this.envelope) AS ymin, ST_YMax(this.envelope) AS ymax
        ) AS b
    ),
    points AS MATERIALIZED (  -- u to the right and v down from the tile's centre, in its widths and heights
        SELECT
            (d.path[1] - 1) % 3 / 2.0::float8 - 0.5 AS u,
            (d.path[1] - 1) / 3 / 2.0::float8 - 0.5 AS v,
            (ST_X(d.geom) - l.x) / l.scale_x AS col,
            (ST_Y(d.geom) - l.y) / l.scale_y AS row
        FROM lattice AS l CROSS JOIN tile AS t
        CROSS JOIN LATERAL ST_DumpPoints(ST_Transform(
            ST_SetSRID(ST_MakeLine(ARRAY[
                ST_MakePoint(t.xmin, t.ymax), ST_MakePoint(t.x, t.ymax), ST_MakePoint(t.xmax, t.ymax),
                ST_MakePoint(t.xmin, t.y), ST_MakePoint(t.x, t.y), ST_MakePoint(t.xmax, t.y),
                ST_MakePoint(t.xmin, t.ymin), ST_MakePoint(t.x, t.ymin), ST_MakePoint(t.xmax, t.ymin)
            ]), {srid}::int4),
            l.srid
        )) AS d
    ),
    fit AS (  -- the source's column and row at the centre, and how many the tile spans each way
        SELECT
            avg(p.col) AS col, avg(p.row) AS row,
            sum(p.u * p.col) / sum(p.u * p.u) AS col_u, sum(p.v * p.col) / sum(p.v * p.v) AS col_v,
            sum(p.u * p.row) / sum(p.u * p.u) AS row_u, sum(p.v * p.row) / sum(p.v * p.v) AS row_v
        FROM points AS p
    ),
    place AS (  -- the inverse: a column's and a row's way in the tiles' CRS
        SELECT
            f.col, f.row,
            w.width * f.row_v / w.det AS scale_x, -w.width * f.col_v / w.det AS skew_x,
            w.height * f.row_u / w.det AS skew_y, -w.height * f.col_u / w.det AS scale_y,
            (
                SELECT max(greatest(
                    abs(f.col + p.u * f.col_u + p.v * f.col_v - p.col), abs(f.row + p.u * f.row_u + p.v * f.row_v - p.row)
                ))
                FROM points AS p
            ) AS off
        FROM fit AS f CROSS JOIN tile AS t
        CROSS JOIN LATERAL (
            SELECT
                t.xmax - t.xmin AS width, t.ymax - t.ymin AS height, f.col_u * f.row_v - f.col_v * f.row_u AS det
        ) AS w
    )
    SELECT
        {srid}::int4 AS srid,
        t.x - p.scale_x * p.col - p.skew_x * p.row AS x, t.y - p.skew_y * p.col - p.scale_y * p.row AS y,
        p.scale_x, p.scale_y, p.skew_x, p.skew_y
    FROM place AS p CROSS JOIN tile AS t
    WHERE p.off <= {tolerance}::float8
    UNION ALL
    SELECT l.* FROM lattice AS l CROSS JOIN place AS p WHERE (p.off <= {tolerance}::float8) IS NOT TRUE
)
