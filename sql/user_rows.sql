-- The user's own query as a relation u, where it names no tile.
-- slots: query (her text, verbatim)
(
{query}
) AS u
