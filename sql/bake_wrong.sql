-- Tiles of a chunk with rows that can't be kept: a batch would not take them either, and says why.
-- slots: none
-- rows: tile
SELECT l.tile FROM pg_temp.pgtiles_live AS l WHERE l.value IS NULL OR l.data IS NULL OR octet_length(l.data) = 0
UNION
SELECT l.tile FROM pg_temp.pgtiles_live AS l GROUP BY l.tile, l.layer, l.n HAVING count(*) > 1
ORDER BY 1
