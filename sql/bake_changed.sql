-- Note the tiles of a chunk whose rows are not those that were baked.
-- slots: tiles (the table), ids (an array)
-- rows: tile_id
-- index: the table's primary key
-- A digest is that of the digests of a tile's rows, in their order; a tile without rows has one too.
UPDATE {tiles} AS t
SET digest = d.digest, baked = now()
FROM (
    SELECT
        w.id,
        md5(coalesce(string_agg(
            concat_ws(' ', b.layer, b.n, b.value, md5(b.data)), '; ' ORDER BY b.layer COLLATE "C", b.n
        ), '')) AS digest
    FROM unnest({ids}::int8[]) AS w (id)
    LEFT JOIN pg_temp.pgtiles_baked AS b ON b.tile_id = w.id
    GROUP BY w.id
) AS d
WHERE t.tile_id = d.id AND t.digest IS DISTINCT FROM d.digest
RETURNING t.tile_id
