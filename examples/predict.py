"""Make the map: the demo's model, trained on the east of a SpaceNet scene, predicts all of it into a raster table.

The scene is stored in degrees; the map lies in UTM zone 11, 1 m a pixel, and QGIS opens it beside the roads that it was trained
on. Killed half-way, the same run goes on where it was. At last the map's roads become polygons.
"""

from pathlib import Path

import demo
import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import Progress

from pgtiles import Database, Grid, Imagery, Labels, TileDataset, Tiles, plot, predict, read, vectorize

TABLE, POLYGONS, RUN = "demo_road_map", "demo_road_polygons", "demo"
OVERLAP = 38  # of the tiles' 96 pixels: 40 %
EPOCHS = 12
DETAIL = 120  # metres a side
say = Console(highlight=False, soft_wrap=True).print


def main(
    output: Path = Path("predict.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS,
    detail: Path = Path("polygons.png"),
) -> dict[str, float]:  # fmt: skip
    """Load the scene, train, predict, make polygons, draw. Gives the IoU of roads on land the model has not seen."""
    db = demo.database(url)
    demo.fill(db)
    train, _, border = demo.areas(db)
    model = demo.fit(
        TileDataset(db, train, demo.LAYERS, batch_size=demo.BATCH, seed=seed, transform=demo.augment), seed, epochs
    )
    make_map(db, model)
    score = look(db, border, output)
    make_polygons(db, detail)
    say(
        f"IoU of roads west of the border, on land not trained on: {score['IoU']:.2f}; everything road: {score['all road']:.2f}"
    )
    say(f"Pictures: {output.resolve()} (image, truth, prediction), {detail.resolve()} (a part of it, and polygons)")
    db.close()
    return score


def make_map(db: Database, model: torch.nn.Module) -> None:
    """Predict the whole scene."""
    everywhere = scene_tiles(db)
    dataset = TileDataset(db, everywhere, {"image": Imagery("demo_scene")}, batch_size=demo.BATCH)
    with Progress(transient=True) as bar:
        task = bar.add_task("predicting")
        done = predict(
            model, dataset, TABLE, run=RUN, classes={1: "road"}, flips=True, overviews=(2, 4), replace=True,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    say(f"{done.table}: {done.tiles} tiles of {demo.GRID.shape[0]} m became {done.blocks} blocks, run {done.run!r}")


def scene_tiles(db: Database) -> Tiles:
    """Tiles over all of the scene, which overlap."""
    return Tiles.sliding(demo.GRID, within=db.extent("demo_scene", demo.GRID.srid), overlap=OVERLAP, edge="shift")


def look(db: Database, border: float, output: Path) -> dict[str, float]:
    """The map as one tile, beside image and roads: a picture, and how right it is west of the border."""
    west, south, east, north = db.extent(TABLE, demo.GRID.srid)
    whole = Grid(srid=demo.GRID.srid, resolution=1, size=(round(north - south), round(east - west)), origin=(west, north))
    layers = demo.LAYERS | {"found": Imagery(TABLE, valid=True)}
    seen = read(db, Tiles(whole, np.array([0]), np.array([0])), layers)
    found, truth, there = seen["found"][0, 0] == 1, seen["mask"][0] == 1, seen["found_valid"][0]
    rows, cols = np.nonzero(there)
    cut = np.s_[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
    shown = {
        "image": seen["image"][0][:, *cut],
        "truth": truth[cut].astype(int),
        "prediction": (found & there)[cut].astype(int),
    }
    plot.batch({name: array[None] for name, array in shown.items()}, output, classes={1: "road"}, title="Las Vegas, all of it")
    tested = there & (west + np.arange(there.shape[1]) + 0.5 < border)
    found, truth = found & tested, truth & tested
    return {"IoU": (found & truth).sum() / (found | truth).sum(), "all road": truth.sum() / tested.sum()}


def make_polygons(db: Database, output: Path) -> None:
    """Of the map's roads, without specks and small holes; drawn finely enough to show what became of the stairs."""
    done = vectorize(db, TABLE, POLYGONS, run=RUN, classes=[1], min_area=100, fill_holes=100, simplify=2, replace=True)
    say(f"{done.table}: {done.rows} polygons; {'; '.join(done.notes)}")
    fine = Grid(srid=demo.GRID.srid, resolution=0.25, size=DETAIL * 4)
    widest = Tiles.query(db, fine, f"SELECT ST_PointOnSurface(geom) AS geom FROM {POLYGONS} ORDER BY area DESC LIMIT 1")
    layers = {
        "image": demo.LAYERS["image"],
        "truth": demo.LAYERS["mask"],
        "prediction": Labels(TABLE),
        "polygons": Labels(POLYGONS),
    }
    plot.batch(
        read(db, widest, layers), output, classes={1: "road"}, title="Roads that were mapped, predicted, and as polygons"
    )


if __name__ == "__main__":
    typer.run(main)
