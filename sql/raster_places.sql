-- Where each raster of a table lies, and how large it is.
-- slots: table, column, key (its primary key, of whole numbers)
-- rows: key, upper left x, y (CRS units), width, height (pixels), by key
-- index: none; reads every raster's header once
SELECT s.{key}::int8, ST_UpperLeftX(s.{column}), ST_UpperLeftY(s.{column}), ST_Width(s.{column}), ST_Height(s.{column})
FROM {table} AS s
WHERE s.{column} IS NOT NULL
ORDER BY s.{key}
