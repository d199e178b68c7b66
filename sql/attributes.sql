-- Where the features of each combination of attributes lie on the batch's tiles.
-- slots: burned (labels.sql of attribute_rows.sql)
-- rows: tile, layer, n, value (of no meaning), fragment: the length of the attributes' JSON in bytes, the JSON (an array), and the
--       raster of labels.sql
SELECT
    b.tile, b.layer, b.n, 0::float8 AS value,
    int4send(octet_length(k.said)) || k.said || b.fragment AS fragment
FROM (
{burned}
) AS b
CROSS JOIN LATERAL (SELECT convert_to(b.value::text, 'UTF8') AS said) AS k
