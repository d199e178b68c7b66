-- The features that a layer's query gives on each tile, one by one, and how they lie there: to explain a tile.
-- slots: part (the class's or band's name), source (user_query.sql), geometry (of a row, in the tiles' SRID, buffered where asked),
--        value (of a row), row (its other columns, as JSON), most
-- rows: tile, part, row, value, dimension, whether it meets the tile, width and height of its box (CRS units)
-- index: whatever serves the user's condition on her geometry column
-- A distance, because it takes invalid geometries as they are, where ST_Intersects may stop at one.
(
    SELECT
        g.tile, {part} AS part, g.row, g.value, ST_Dimension(g.geom) AS dimension,
        coalesce(ST_Distance(g.geom, g.envelope) = 0, false) AS meets,
        ST_XMax(g.geom) - ST_XMin(g.geom) AS wide, ST_YMax(g.geom) - ST_YMin(g.geom) AS high
    FROM (
        SELECT tile.n AS tile, tile.envelope, {row} AS row, {value}::float8 AS value, {geometry} AS geom
        FROM {source}
        WHERE u.geom IS NOT NULL
        LIMIT {most}::int8
    ) AS g
)
