"""Tell roads, buildings and parks apart in the centre of Helsinki, where each road has a width of its own.

The label is one SQL query over OpenStreetMap tables, and the imagery is painted from the same tables (render.py), so that it
runs anywhere. What seeing shapes is worth is told by a model that sees only the colour of each pixel.
"""

import tempfile
import time
from pathlib import Path

import rasterio
import torch
import typer
from demo import database
from render import aerial
from rich.console import Console
from rich.progress import Progress, track
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from unet import UNet

from pgtiles import Database, Grid, Imagery, Labels, Split, TileDataset, Tiles, errors, load, plot, read, samples

PREFIX = "helsinki"  # of all tables made here: planet_osm_line may be there already, and is somebody's
CITY = (385425.0, 6671465.0, 386460.0, 6672760.0)  # where the map is complete: west, south, east and north in metres
PIXEL = 0.5  # metres, of the imagery
GRID = Grid(srid=3067, resolution=1.0, size=96)  # Finland's CRS; a tile sees more city in pixels of 1 m, which PostGIS makes
TILES, BATCH, EPOCHS = 300, 8, 14
NAMES = ("background", "road", "building", "park")
WEIGHTS = torch.tensor([1.0, 2.0, 1.0, 1.0])  # of the classes in training: roads are the rare one

# As wide as their lanes, or, where nobody counted these, as roads of their class usually are. Only what a camera can see.
STREETS = rf"""
    SELECT osm_id, way, lanes, bridge, coalesce(3.25 * lanes, CASE
        WHEN highway IN ('primary', 'secondary', 'tertiary') THEN 7
        WHEN highway IN ('residential', 'unclassified') THEN 5.5
        ELSE 3.5 END) AS width
    FROM (SELECT *, substring(tags->'lanes' FROM '^[1-9]')::int AS lanes FROM {PREFIX}_line) AS l
    WHERE (highway IN ('primary', 'secondary', 'tertiary', 'residential', 'unclassified', 'service') OR highway LIKE '%\_link')
      AND tunnel IS NULL AND coalesce(layer, '0') NOT LIKE '-%'
"""
# A road lies on its park, a house on its road, where that goes through a gate, and a bridge on all of them. The widest road has
# nine lanes, so no centre line from which a road reaches into the tile is further away than 15 m.
CLASSES = f"""
    SELECT ST_Buffer(way, width / 2) AS geom, 1 AS value, CASE WHEN bridge IS NULL THEN 1 ELSE 3 END AS priority
    FROM ({STREETS}) AS s WHERE ST_DWithin(way, tile.geom, 15)
    UNION ALL
    SELECT way, 2, 2 FROM {PREFIX}_polygon
    WHERE building IS NOT NULL AND coalesce(layer, '0') NOT LIKE '-%' AND way && tile.geom
    UNION ALL
    SELECT way, 3, 0 FROM {PREFIX}_polygon WHERE leisure IN ('park', 'garden') AND way && tile.geom
"""
LAYERS = {"image": Imagery(f"{PREFIX}_aerial"), "mask": Labels(CLASSES)}
ONE_WIDTH = Labels(f"SELECT ST_Buffer(way, 3) AS geom FROM ({STREETS}) AS s WHERE ST_DWithin(way, tile.geom, 3)")
say = Console(highlight=False, soft_wrap=True).print


def main(output: Path = Path("helsinki.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS) -> dict[str, float]:
    """Load the map, paint the city, train, test on blocks of land the model has not seen, draw. Gives each class's IoU."""
    db = database(url)
    fill(db)
    split = blocks()
    test = {key: torch.from_numpy(array) for key, array in read(db, split.test, LAYERS | {"same": ONE_WIDTH}).items()}
    guess = told(iou(torch.zeros_like(test["mask"]), test["mask"]))
    same = iou(test["same"], test["mask"])["road"]
    say(f"IoU in the test tiles, everything background: {guess}. Truth itself, were all roads 6 m wide: road {same:.2f}")
    dataset = TileDataset(db, split.train, LAYERS, batch_size=BATCH, seed=seed, transform=augment)
    torch.manual_seed(seed)
    colour = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, len(NAMES), 1))
    fit("colour", colour, dataset, test, max(1, epochs // 2), rate=0.02)
    scores = fit("U-Net", UNet(3, len(NAMES)), dataset, test, epochs, rate=0.003)
    dataset.close()
    picture(test, output)
    say(f"Picture (image, truth, prediction): {output.resolve()}")
    return scores


def fill(db: Database) -> None:
    """Fetch the map, load it into tables of our own, and paint and load the imagery."""
    with Console().status("fetching OpenStreetMap's Helsinki (6 MB, once)"):
        file = samples.helsinki()
    with Console().status("loading the map") as status:
        load.osm(db, file, prefix=PREFIX, srid=GRID.srid, replace=True, progress=status.update)
    with Console().status("painting the city from above"):
        image = aerial(db, CITY, GRID.srid, PIXEL, STREETS, PREFIX)
    with tempfile.TemporaryDirectory() as folder, Progress(transient=True) as bar:
        west, _, _, north = CITY
        profile = {"driver": "GTiff", "crs": f"EPSG:{GRID.srid}", "dtype": "uint8", "count": 3}
        where = rasterio.transform.from_origin(west, north, PIXEL, PIXEL)
        path = Path(folder) / "aerial.tif"
        with rasterio.open(path, "w", **profile, width=image.shape[2], height=image.shape[1], transform=where) as tif:
            tif.write(image)
        task = bar.add_task("loading the picture")
        load.raster(
            db, path, f"{PREFIX}_aerial", replace=True,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    say(f"loaded the map and a picture of {image.shape[2]} × {image.shape[1]} pixels of {PIXEL} m")


def ready(db: Database) -> Database:
    """The same database with the city in it, which may be there from a run before. For examples that go on from this one."""
    try:
        db.table(f"{PREFIX}_aerial")
    except errors.MissingError:
        fill(db)
    return db


def blocks() -> Split:
    """Random tiles, dealt by blocks of land, so that no house is in both. They are the same ones for each seed of the model."""
    split = Tiles.random(GRID, within=CITY, count=TILES, seed=2).split(train=0.7, test=0.3, block=500, gap=8, seed=2)
    say(f"{len(split.train)} tiles to train on, {len(split.test)} to test on; {split.dropped} lay too near to both")
    return split


def augment(sample: dict, generator: torch.Generator) -> dict:
    """Turned and mirrored one of the eight ways, image and mask alike; the image with more or less contrast and light."""
    turns, mirror = (int(torch.randint(n, (), generator=generator)) for n in (4, 2))
    for key in LAYERS:
        turned = sample[key].rot90(turns, (-2, -1))
        sample[key] = turned.flip(-1) if mirror else turned
    contrast, light = torch.exp(0.15 * torch.randn(2, generator=generator))
    image = sample["image"].float()
    sample["image"] = ((image - image.mean()) * contrast + image.mean()) * light
    return sample


def fit(name: str, model: nn.Module, dataset: TileDataset, test: dict, epochs: int, rate: float) -> dict[str, float]:
    """Train, print each class's IoU after each epoch, and give the last ones."""
    dataset.set_epoch(0)
    model.to(memory_format=torch.channels_last)  # faster on a CPU
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * len(dataset))
    loader = dataset.loader()
    for epoch in range(1, epochs + 1):
        began = time.perf_counter()
        for batch in track(loader, f"{name}, epoch {epoch} of {epochs}", len(dataset), transient=True):
            loss = nn.functional.cross_entropy(model(batch["image"].float()), batch["mask"], WEIGHTS)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
        test["prediction"] = predict(average, test["image"])
        scores = iou(test["prediction"], test["mask"])
        say(f"{name:6} epoch {epoch:2}  {told(scores)}  {time.perf_counter() - began:.0f} s")
    return scores


@torch.no_grad()
def predict(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """The likeliest class of each pixel, (N, H, W)."""
    model.eval()
    return torch.cat([model(part.float()).argmax(1) for part in image.split(BATCH)])


def iou(found: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Intersection over union of each class, and their mean, over all pixels."""
    both = torch.bincount(len(NAMES) * truth.flatten() + found.flatten(), minlength=len(NAMES) ** 2).view(len(NAMES), -1)
    each = both.diag() / (both.sum(0) + both.sum(1) - both.diag()).clamp(min=1)
    return dict(zip(NAMES, each.tolist(), strict=True)) | {"mean": each.mean().item()}


def told(scores: dict[str, float]) -> str:
    return "  ".join(f"{name} {score:.2f}" for name, score in scores.items())


def picture(test: dict, output: Path) -> None:
    """Four test tiles with much to see: those with the most even mixture of classes, as long as they don't overlap."""
    share = torch.stack([(test["mask"] == value).float().mean((1, 2)) for value in range(len(NAMES))], dim=1)
    chosen: list[int] = []
    for tile in torch.special.entr(share).sum(1).argsort(descending=True).tolist():
        west, south, east, north = test["bounds"][chosen].T
        x0, y0, x1, y1 = test["bounds"][tile]
        if len(chosen) < 4 and not ((x0 < east) & (west < x1) & (y0 < north) & (south < y1)).any():
            chosen.append(tile)
    sample = {"image": test["image"], "truth": test["mask"], "prediction": test["prediction"]}
    classes = {value: name for value, name in enumerate(NAMES) if value}
    shown = {key: value[chosen] for key, value in sample.items()}
    title = "Helsinki, test tiles. Map data © OpenStreetMap contributors"
    plot.batch(shown, output, classes=classes, colours={3: "tab:green"}, title=title)


if __name__ == "__main__":
    typer.run(main)
