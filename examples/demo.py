"""Train a road model on a real SpaceNet scene, straight out of PostGIS. Run it with `pgtiles demo`, or read it as an example.

The scene (Las Vegas, 0.3 m) is stored in degrees, EPSG:4326. The tiles are metric, UTM zone 11: PostGIS reprojects the imagery
and buffers the roads in metres, by their number of lanes, while the model trains.
"""

import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, track
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from unet import UNet

from pgtiles import Database, Grid, Imagery, Labels, LocalServer, TileDataset, Tiles, errors, load, plot, samples

GRID = Grid(srid=32611, resolution=1.0, size=96)
TEST_SHARE, GAP = 0.27, 24  # the western part of the scene is for testing; metres of land between it and the training area
TILES, BATCH, EPOCHS, RATE = 128, 8, 20, 3e-3

UNSEEN = -100  # what cross_entropy leaves out: pixels that the scene does not cover

# 3.5 m a lane and a shoulder of 1.5 m on either side. tile.geom comes in the roads' own SRID, which is the one of their index.
ROADS = """
    SELECT ST_Buffer(ST_Transform(geom, 32611), 1.75 * lane_number::int + 1.5) AS geom
    FROM demo_roads
    WHERE geom && ST_Expand(tile.geom, 0.0003)
"""
LAYERS = {"image": Imagery("demo_scene"), "mask": Labels(ROADS, srid=4326)}
say = Console(highlight=False).print


def main(output: Path = Path("demo.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS) -> float:
    """Load the scene, train, test on land the model has not seen, draw. Gives the last epoch's IoU."""
    db = database(url)
    fill(db)
    train, test, border = areas(db)
    dataset = TileDataset(db, train, LAYERS, batch_size=BATCH, seed=seed, transform=augment)
    truth = TileDataset(db, test, LAYERS, batch_size=len(test), shuffle=False)
    whole = next(iter(truth))
    centres = whole["bounds"][:, 0, None] + (torch.arange(GRID.shape[1]) + 0.5) * GRID.pixel[0]
    whole["tested"] = (whole["image"][:, 0] > 0) & (centres < border)[:, None, :]  # in the scene, and west of the border
    everything = iou(torch.ones_like(whole["mask"]), whole)
    blind = iou(predict(fit(dataset, seed, max(1, epochs // 4), blind=True), torch.zeros_like(whole["image"])), whole)
    say(f"IoU of roads in the test area if everything were road: {everything:.2f}; of a model that sees no image: {blind:.2f}")
    model = fit(dataset, seed, epochs, whole=whole)
    result = predict(model, whole["image"])
    picture(whole, result, output)
    score = iou(result, whole)
    say(f"IoU {score:.2f} in the test area. Picture (image, truth, prediction): {output.resolve()}")
    say(
        "Next: the same on your own tables (README), other widths (ROADS in examples/demo.py), or a look at the tiles:\n"
        "  pgtiles preview --image demo_scene --labels demo_roads --srid 32611 --resolution 0.5 --buffer 5 --out preview.png\n"
        "The server goes on running; `pgtiles down` stops it, and its data stays."
    )
    dataset.close()
    truth.close()
    return score


def database(url: str | None) -> Database:
    """The database that the user names, or else a local server, started if need be."""
    try:
        db = Database(url)
    except errors.DatabaseError:
        server = LocalServer()
        with Console().status("starting a local PostGIS server"):
            server.start()
        say(f"local PostGIS server: {server.path}")
        db = Database(server.url)
    say(f"database: {db.name}")
    return db


def fill(db: Database) -> None:
    """Fetch the sample and load it, in a few seconds."""
    with Console().status("fetching the SpaceNet sample (10 MB, once)"):
        folder = samples.spacenet()
    with Progress(transient=True) as bar:
        task = bar.add_task("loading the scene")
        load.raster(
            db, [folder / "road_mask_input.tif"], "demo_scene", replace=True,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    roads = load.vector(db, folder / "sample_roads_for_masking.geojson", "demo_roads", replace=True)
    say(f"loaded the scene and {roads.rows} road centre lines, both in EPSG:4326")


def areas(db: Database) -> tuple[Tiles, Tiles, float]:
    """Tiles to train on, random in the east of the scene, tiles that cover its west, and the border of the west."""
    west, south, east, north = db.extent("demo_scene", GRID.srid)
    border = west + TEST_SHARE * (east - west)
    train = Tiles.random(GRID, within=(border + GAP, south, east, north), count=TILES)
    side, half = GRID.shape[0] * GRID.pixel[0], GRID.shape[0] // 2
    strip = (west, south, max(border, west + side + GRID.pixel[0]), north)  # a tile is wider: it sees a little of the gap
    test = Tiles.sliding(GRID, within=strip, stride=half)
    rest = Tiles.sliding(GRID, within=(*strip[:3], south + side + GRID.pixel[1]), stride=half, first_id=len(test))
    test += rest  # the south, which is less than a stride away from the tiles before
    say(
        f"{len(train)} training tiles of {side:g} m from {border + GAP - west:.0f} m on eastwards, "
        f"tests on the western {border - west:.0f} m ({TEST_SHARE:.0%} of the scene)"
    )
    return train, test, border


def augment(sample: dict, generator: torch.Generator) -> dict:
    """Turned and mirrored one of the eight ways, image and mask alike; the image with more or less contrast and light."""
    sample["mask"][sample["image"][0] == 0] = UNSEEN
    turns, mirror = (int(torch.randint(n, (), generator=generator)) for n in (4, 2))
    for key in LAYERS:
        turned = sample[key].rot90(turns, (-2, -1))
        sample[key] = turned.flip(-1) if mirror else turned
    contrast, light = torch.exp(0.3 * torch.randn(2, generator=generator))
    mean = sample["image"].mean()
    sample["image"] = ((sample["image"] - mean) * contrast + mean) * light
    return sample


def fit(dataset: TileDataset, seed: int, epochs: int, *, whole: dict | None = None, blind: bool = False) -> torch.nn.Module:
    """Train; with a test batch, print its IoU after each epoch. Gives the running average of the weights."""
    torch.manual_seed(seed)
    dataset.set_epoch(0)
    model = UNet(channels=dataset.plan.layers[0].sheet.shape[0]).to(memory_format=torch.channels_last)  # faster on a CPU
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * len(dataset))
    loader = dataset.loader()
    for epoch in range(1, epochs + 1):
        began, losses = time.perf_counter(), []
        steps = loader if blind else track(loader, f"epoch {epoch} of {epochs}", len(dataset), transient=True)
        for batch in steps:
            image = torch.zeros_like(batch["image"]) if blind else batch["image"]
            loss = criterion(model(image), batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
            losses.append(loss.item())
        if whole is not None:
            score = iou(predict(average, whole["image"]), whole)
            say(f"epoch {epoch:2}  loss {np.mean(losses):.3f}  test IoU {score:.3f}  {time.perf_counter() - began:.0f} s")
    return average


def criterion(logits: torch.Tensor, batch: dict) -> torch.Tensor:
    """Cross-entropy and Dice over the pixels that the scene covers."""
    entropy = functional.cross_entropy(logits, batch["mask"], ignore_index=UNSEEN)
    road, truth = logits.softmax(1)[:, 1] * (batch["mask"] != UNSEEN), (batch["mask"] == 1).float()
    return entropy + 1 - (2 * (road * truth).sum() + 1) / (road.sum() + truth.sum() + 1)


@torch.no_grad()
def predict(model: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Probability of road, (N, H, W): the mean over the eight ways to turn and mirror each tile."""
    model.eval()
    total = torch.zeros_like(image[:, 0])
    for turns in range(4):
        for mirror in ((), (-1,)):
            road = model(image.rot90(turns, (-2, -1)).flip(mirror)).softmax(1)[:, 1]
            total += road.flip(mirror).rot90(-turns, (-2, -1))
    return total / 8


def strung(tiles: torch.Tensor, bounds: torch.Tensor) -> torch.Tensor:
    """Overlapping tiles (N, H, W) as one image of the test strip: each pixel the mean of the tiles that show it."""
    (sx, sy), n = GRID.pixel, GRID.shape[0]
    cols = ((bounds[:, 0] - bounds[:, 0].min()) / sx).round().long()
    rows = ((bounds[:, 3].max() - bounds[:, 3]) / sy).round().long()
    total = torch.zeros(int(rows.max()) + n, int(cols.max()) + n)
    count = total.clone()
    for tile, r, c in zip(tiles.float(), rows.tolist(), cols.tolist(), strict=True):
        total[r : r + n, c : c + n] += tile
        count[r : r + n, c : c + n] += 1
    return total / count.clamp(min=1)


def iou(road: torch.Tensor, whole: dict) -> float:
    """Intersection over union of roads, over all pixels of the test area, each counted once."""
    road, truth, tested = (strung(t, whole["bounds"]) for t in (road, whole["mask"], whole["tested"]))
    found, there = (road > 0.5) & (tested > 0), (truth > 0.5) & (tested > 0)
    return float((found & there).sum() / (found | there).sum().clamp(min=1))


def picture(whole: dict, road: torch.Tensor, output: Path) -> None:
    """The test area three times: image, truth, prediction."""
    image, truth, found, tested = (
        strung(t, whole["bounds"]) for t in (whole["image"][:, 0], whole["mask"], road, whole["tested"])
    )
    rows, cols = tested.nonzero(as_tuple=True)
    cut = (slice(rows.min(), rows.max() + 1), slice(cols.min(), cols.max() + 1))
    image, truth, found = (t[cut] for t in (image, truth, found))
    sample = {"image": image[None, None], "truth": (truth > 0.5).long()[None], "prediction": (found > 0.5).long()[None]}
    plot.batch(sample, output, classes={1: "road"}, title="Las Vegas, test area")


if __name__ == "__main__":
    main()
