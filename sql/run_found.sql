-- The run of a name.
-- slots: runs (its table), name
-- rows: id, name, model, layers, settings, tiles, classes, metrics, done, began, ended; none where there is no such run
-- index: the unique one on name
SELECT id, name, model, layers, settings, tiles, classes, metrics, done, began, ended
FROM {runs}
WHERE name = {name}
