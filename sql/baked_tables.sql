-- The tables of baked tiles, both empty.
-- slots: table (of the rows), tiles (of the tiles), srid
-- rows: none
-- index: the primary keys: of a tile by its id, and of a tile's rows by tile, layer and n, in which order they are read
-- A row is what a batch would send: layer, n, value, data (see reading). They are kept uncompressed, as photographs are stored:
-- to decompress them would take longer than to fetch them. A tile whose digest is NULL is still to be baked. Its sources, where it was asked
-- to keep them, are an array of [layer, table or class, key of the row].
CREATE TABLE {tiles} (
    tile_id int8 PRIMARY KEY,
    place int8 GENERATED ALWAYS AS IDENTITY,
    grid_col int8 NOT NULL,
    grid_row int8 NOT NULL,
    time timestamptz,
    geom geometry(Polygon, {srid}) NOT NULL,
    digest text,
    baked timestamptz,
    sources jsonb
);
CREATE TABLE {table} (
    tile_id int8 NOT NULL REFERENCES {tiles} ON DELETE CASCADE,
    layer text NOT NULL,
    n int4 NOT NULL,
    value float8 NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tile_id, layer, n)
);
ALTER TABLE {table} ALTER COLUMN data SET STORAGE EXTERNAL
