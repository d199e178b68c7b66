-- Declare what all blocks have in common, so that raster_columns says it without a look at the pixels.
-- slots: schema, name
-- rows: one: true. A constraint that does not hold for the rows there are is left out, with a NOTICE.
-- index: none; every block's header is read. The extent is left out (it forbids later blocks elsewhere), and so is
--        regular_blocking (blocks at the edges are smaller).
SELECT AddRasterConstraints(
    {schema}::name, {name}::name, 'rast'::name,
    'srid', 'scale_x', 'scale_y', 'blocksize_x', 'blocksize_y', 'same_alignment',
    'num_bands', 'pixel_types', 'nodata_values', 'out_db'
)
