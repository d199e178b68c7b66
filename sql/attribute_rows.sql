-- The features that a query gives, with their attributes in place of a value: what labels.sql burns.
-- slots: source (user_query.sql), geometry (of a row, in the tiles' SRID, buffered where asked), attributes (columns of u)
-- rows: tile, envelope (the tile's own), rank, value (a JSON array of the attributes), priority, geom
SELECT
    tile.n AS tile, tile.envelope, 0 AS rank,
    jsonb_build_array({attributes}) AS value, 0 AS priority, {geometry} AS geom
FROM {source}
