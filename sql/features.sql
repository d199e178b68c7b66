-- The features of one class, one band, or all that a query gives: what labels.sql burns.
-- slots: rank (of the class or band, from 0), source (user_query.sql), geometry (of a row, in the tiles' SRID, buffered where
--        asked), value, priority (of a row, anything that can be sorted)
-- rows: tile, envelope (the tile's own), rank, value, priority, geom
SELECT
    tile.n AS tile, tile.envelope, {rank}::int4 AS rank,
    {value}::float8 AS value, {priority} AS priority, {geometry} AS geom
FROM {source}
