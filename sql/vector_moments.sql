-- Whether the dates and times in a text column say how far they are from UTC.
-- slots: table, column
-- rows: one: whether any does, whether any does not
-- index: none; reads all rows
SELECT coalesce(bool_or(zoned), false), coalesce(bool_or(NOT zoned), false)
FROM (SELECT {column} ~ '(Z|[+-]\d\d(:?\d\d)?)$' AS zoned FROM {table}) AS moments
