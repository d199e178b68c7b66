-- The priority of a row among those of its class, as a number: the classes' own priorities may be of different types.
-- slots: none; stands in features.sql
-- value: 1 for the least; rows of equal priority get the same, and NULL stays the greatest
dense_rank() OVER (PARTITION BY tile.n ORDER BY u.priority)
