"""An aerial picture of a city, painted from its OpenStreetMap tables: imagery for whoever has none at hand.

pgtiles itself holds the brush: whatever lies on the ground is a label query, burned over the whole city as one large tile.
NumPy then adds what makes imagery hard to read: texture, roofs and yards of the same grey as streets, trees that hide what is
below them, the shadows of houses, blur and noise. A model that has learnt this city knows a painting, and no real one.
"""

import numpy as np
from numpy.typing import NDArray

from pgtiles import Database, Grid, Labels, Tiles, read

Bounds = tuple[float, float, float, float]

GRASS, GRAVEL, PAVING, ASPHALT, WATER = 1, 2, 3, 4, 5
GROUND = np.array([(122, 118, 112), (92, 104, 62), (128, 116, 100), (142, 137, 130), (93, 93, 97), (44, 60, 66)], np.float32)
YARD = np.array((100, 98, 98), np.float32)  # open ground goes from the first colour above to this one: as grey as a street
ROOFS = np.array(
    [(76, 76, 80), (96, 96, 100), (118, 118, 120), (150, 148, 144), (112, 84, 74), (98, 74, 66), (98, 116, 106), (66, 66, 70)],
    np.float32,
)
PAINT = np.array([(226, 226, 224), (40, 42, 46), (150, 152, 156), (128, 44, 40), (52, 66, 104), (206, 206, 206)], np.float32)
MARKING = len(PAINT)  # the last paint is the one of lane markings; the others are cars
CAR = 1.5  # metres high

# A number from 0 to 1 that is always the same for the same feature: what the tags don't say is made up, but only once.
CHANCE = "(abs(hashint8({})::bigint) % 1000 / 1000.0)"
OF_ROAD, OF_HOUSE, OF_CAR = (CHANCE.format(of) for of in ("osm_id", "osm_id * 7", "osm_id * 1000 + n"))


def layers(streets: str, prefix: str) -> dict[str, Labels]:
    """What is on the ground. `streets` is the query of their centre lines: osm_id, way, width, lanes."""
    line, polygon, point = (f"{prefix}_{kind}" for kind in ("line", "polygon", "point"))
    open_air = "tunnel IS NULL AND coalesce(layer, '0') NOT LIKE '-%' AND coalesce(tags->'indoor', 'no') = 'no'"
    surface = f"""
        SELECT way AS geom, CASE WHEN "natural" = 'water' THEN {WATER} WHEN landuse IN ('construction', 'railway') THEN {GRAVEL}
               WHEN leisure IS NOT NULL OR landuse = 'grass' OR "natural" IS NOT NULL THEN {GRASS}
               WHEN amenity = 'parking' OR highway = 'service' THEN {ASPHALT} ELSE {PAVING} END AS value,
               CASE WHEN leisure IS NOT NULL THEN 0 ELSE 1 END AS priority
        FROM {polygon}
        WHERE way && tile.geom AND coalesce(layer, '0') NOT LIKE '-%'
          AND (leisure IN ('park', 'garden', 'pitch') OR landuse IN ('grass', 'construction', 'railway') OR amenity = 'parking'
               OR "natural" IN ('water', 'heath', 'scrub', 'wood') OR highway IN ('service', 'pedestrian', 'footway'))
        UNION ALL
        SELECT ST_Buffer(way, CASE WHEN railway = 'rail' THEN 3.4 WHEN highway = 'cycleway' THEN 1.2 ELSE 1.4 END),
               CASE WHEN railway = 'rail' THEN {GRAVEL} WHEN highway = 'cycleway' THEN {ASPHALT} ELSE {PAVING} END, 2
        FROM {line}
        WHERE way && tile.geom AND {open_air} AND (railway = 'rail' OR highway IN ('footway', 'cycleway', 'steps', 'path'))
        UNION ALL
        SELECT ST_Buffer(way, width / 2 + edge), CASE WHEN edge > 1 THEN {PAVING} ELSE {ASPHALT} END,
               CASE WHEN edge > 1 THEN 2 ELSE 3 END
        FROM (SELECT *, 0.6 * ({OF_ROAD} - 0.5) AS kerb FROM ({streets}) AS s) AS s
        CROSS JOIN LATERAL unnest(CASE WHEN width > 5 THEN ARRAY[kerb, kerb + 2.5] ELSE ARRAY[kerb] END) AS edge
        WHERE way && tile.geom
    """
    # A car stands on a piece of the centre line, moved to the kerb; a lane marking is such a piece left where it is.
    pieces = f"""
        SELECT osm_id, n, width, lanes, ST_LineSubstring(way, n * 7 / length, (n * 7 + 4.4) / length) AS piece
        FROM (SELECT *, ST_Length(way) AS length FROM ({streets}) AS s) AS s
        CROSS JOIN LATERAL generate_series(1, (length / 7)::int - 2) AS n
        WHERE way && tile.geom
    """
    paint = f"""
        SELECT ST_Buffer(ST_OffsetCurve(piece, CASE WHEN n % 2 = 0 THEN 1 ELSE -1 END * (width / 2 - 1.3)), 0.9, 'endcap=flat')
               AS geom, 1 + n * 7 % {len(PAINT) - 1} AS value, 1 AS priority
        FROM ({pieces}) AS p WHERE {OF_CAR} < CASE WHEN width < 4 THEN 0.2 WHEN lanes > 1 THEN 0.4 ELSE 0.6 END
        UNION ALL
        SELECT piece, {MARKING}, 0 FROM ({pieces}) AS p WHERE lanes > 1
        UNION ALL
        SELECT ST_Boundary(ST_Buffer(way, 0.8)), 2, 0 FROM {line}
        WHERE way && tile.geom AND railway IN ('rail', 'tram') AND {open_air}
    """
    houses = f"FROM {polygon} WHERE building IS NOT NULL AND way && tile.geom AND coalesce(layer, '0') NOT LIKE '-%'"
    storeys = rf"coalesce(substring(tags->'building:levels' FROM '^\d+')::int, 3 + (5 * {OF_HOUSE})::int)"
    return {
        "surface": Labels(surface, dtype="uint8"),
        "paint": Labels(paint, dtype="uint8"),
        "house": Labels(f"SELECT way AS geom, row_number() OVER (ORDER BY osm_id) AS value {houses}", dtype="uint16"),
        "storeys": Labels(f"SELECT way AS geom, {storeys} AS value {houses}", dtype="uint8"),
        # Every other house has a hipped roof: rings of it, each a metre further in and higher than the one before.
        "pitch": Labels(
            f"SELECT ST_Buffer(way, -ring) AS geom, ring AS value FROM (SELECT * {houses}) AS h, generate_series(1, 8) AS ring "
            f"WHERE {OF_HOUSE} < 0.5", dtype="uint8",
        ),
        "trunk": Labels(f"""
            SELECT way AS geom FROM {point} WHERE "natural" = 'tree' AND way && tile.geom
            UNION ALL
            SELECT ST_Points(ST_Segmentize(way, 8)) FROM {line} WHERE "natural" = 'tree_row' AND way && tile.geom
        """),
    }  # fmt: skip


def aerial(db: Database, within: Bounds, srid: int, px: float, streets: str, prefix: str) -> NDArray[np.uint8]:
    """The picture, (3, height, width), of the land within these bounds, in pixels of `px` metres."""
    west, south, east, north = within
    shape = round((north - south) / px), round((east - west) / px)
    grid = Grid(srid=srid, resolution=px, size=shape, origin=(west, north))
    wanted = layers(streets, prefix)
    there = read(db, Tiles.sliding(grid, within=within), wanted)
    surface, paint, house, storeys, pitch, trunk = (there[name][0] for name in wanted)
    rng = np.random.default_rng(0)
    rough, coarse, wide = (clouds(rng, shape, cell) for cell in (2, 12, 160))

    colour = GROUND[surface]
    ground = (surface == 0)[..., None]
    colour = np.where(ground, colour + (YARD - colour) * np.clip(0.5 + 2 * wide, 0, 1)[..., None], colour)
    colour += (np.where(surface == GRASS, 26, 9) * coarse)[..., None] * (1.0, 1.0, 0.7)
    marked = (paint == MARKING) & (rough > -0.4)  # worn off here and there
    colour[marked] = 0.5 * colour[marked] + 0.5 * PAINT[MARKING - 1]
    car = (paint > 0) & (paint < MARKING)
    colour[car] = PAINT[paint[car] - 1]

    roof = house > 0
    style = rng.integers(len(ROOFS), size=int(house.max()) + 1)
    colour[roof] = ROOFS[style][house[roof]] + 12 * coarse[roof, None]
    height = roof * (3.4 * storeys + pitch) + CAR * (car & ~roof)
    for y, x in scattered(rng, roof, per=500):  # chimneys, hatches, fans
        tall, broad = rng.integers(2, 9, 2)
        box = np.s_[y : y + tall, x : x + broad]
        if roof[box].all():
            height[box] += rng.uniform(0.8, 2.5)
            colour[box] += rng.normal(0, 25)

    crown = np.zeros(shape, np.float32)
    plant(crown, np.argwhere(trunk), rng, px)
    plant(crown, scattered(rng, (surface == GRASS) & (coarse + wide > 0.1) & ~roof, per=250), rng, px)
    plant(crown, scattered(rng, (surface == 0) & ~roof, per=6000), rng, px)
    leaves = crown * (1 + 0.35 * rough) > height + 1
    colour[leaves] = (66, 82, 44) + 16 * rough[leaves, None] + 14 * coarse[leaves, None] * (1.2, 1.0, 0.4)
    height = np.where(leaves, crown * (1 + 0.25 * rough), height)

    lit = 1 + 0.35 * np.tanh(slope(height) / 2) * np.where(leaves, 1.2, 1.0)
    lit = np.where(shadowed(height, px), 0.42, lit)
    colour *= blurred(lit, 0.7)[..., None] * (1 + 0.06 * wide[..., None])
    colour += np.where(lit < 0.5, 1.0, 0.0)[..., None] * (0, 2, 8)  # shadows are lit by the blue sky
    colour = np.stack([blurred(band, 0.8) for band in np.moveaxis(colour, -1, 0)]) + rng.normal(0, 4.0, (3, *shape)) + 14
    return np.clip(colour, 1, 255).astype(np.uint8)


def clouds(rng: np.random.Generator, shape: tuple[int, int], cell: int) -> NDArray[np.float32]:
    """Smooth noise about 0, deviating by about 0.4, whose lumps are some `cell` pixels wide."""
    coarse = rng.normal(size=(shape[0] // cell + 2, shape[1] // cell + 2)).astype(np.float32)
    for axis, length in enumerate(shape):
        at = np.arange(length, dtype=np.float32) / cell
        low, part = at.astype(int), np.expand_dims(at % 1, 1 - axis)
        coarse = coarse.take(low, axis) * (1 - part) + coarse.take(low + 1, axis) * part
    return 0.6 * coarse


def scattered(rng: np.random.Generator, where: NDArray[np.bool_], per: float) -> NDArray[np.int64]:
    """(N, 2) random pixels, rows and columns, one for each `per` pixels of an area."""
    found = np.argwhere(where)
    return rng.choice(found, int(len(found) / per))


def plant(crown: NDArray[np.float32], trunks: NDArray[np.int64], rng: np.random.Generator, px: float) -> None:
    """Raise a crown of 2 to 5 m radius, half a ball on a stem, over each trunk."""
    for (y, x), radius in zip(trunks, rng.uniform(2, 5, len(trunks)) / px, strict=True):
        r = int(radius)
        top, left = max(y - r, 0), max(x - r, 0)
        box = crown[top : y + r + 1, left : x + r + 1]
        dy, dx = np.ogrid[top - y : top - y + box.shape[0], left - x : left - x + box.shape[1]]
        inside = 1 - (dy**2 + dx**2) / radius**2
        np.maximum(box, np.where(inside > 0, radius * px * (0.8 + np.sqrt(np.maximum(inside, 0))), 0), out=box)


def slope(height: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far the surface falls towards the sun in the south-south-west: positive where it faces the sun."""
    smooth = blurred(height, 0.8)
    rise = np.zeros_like(smooth)
    rise[1:-1, 1:-1] = smooth[:-2, 1:-1] - smooth[2:, 1:-1] + 0.5 * (smooth[1:-1, 2:] - smooth[1:-1, :-2])
    return rise


def shadowed(height: NDArray[np.float32], px: float, fall: float = 1.3) -> NDArray[np.bool_]:
    """Where the sun does not shine, as it stands in the south-south-west, so high that shadows fall by `fall` metres a metre.

    From the south on, each row of pixels lies under the shadow that the row before casts, a little lower and further east.
    """
    roof = height.copy()
    for row in range(len(height) - 2, -1, -1):
        cast = roof[row + 1] - fall * px * 1.12
        if row % 2:
            cast = np.concatenate([cast[:1], cast[:-1]])
        np.maximum(roof[row], cast, out=roof[row])
    return roof > height + 0.3


def blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """A Gaussian blur."""
    reach = int(3 * sigma) + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    for axis in (0, 1):
        padded = np.pad(image, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        parts = (w * padded.take(range(k, k + image.shape[axis]), axis) for k, w in enumerate(weights / weights.sum()))
        image = sum(parts).astype(np.float32)
    return image
