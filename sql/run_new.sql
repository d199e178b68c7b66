-- Note a run that begins.
-- slots: runs (its table), name, model, layers, settings, classes (the last three as JSON), tiles, xmin, ymin, xmax, ymax, srid
-- rows: none
-- index: none
INSERT INTO {runs} (name, model, layers, settings, tiles, classes, area)
VALUES (
    {name}, {model}, {layers}::jsonb, {settings}::jsonb, {tiles}, {classes}::jsonb,
    ST_Transform(ST_MakeEnvelope({xmin}, {ymin}, {xmax}, {ymax}, {srid}), 4326)
)
