"""One network, two answers: where the streets are, pixel by pixel, and how much of the tile is under roofs, as one number.

Two label layers stand side by side in the dict of layers, and a batch holds both. The encoder and decoder are shared, a head of
one layer each reads its answer from them. The city is helsinki.py's, painted from OpenStreetMap.
"""

from pathlib import Path

import torch
import typer
from helsinki import CITY, PREFIX, STREETS, database, ready
from rich.console import Console
from torch import Tensor, nn
from unet import UNet

from pgtiles import Grid, Imagery, Labels, TileDataset, Tiles, Value, plot, read

GRID = Grid(srid=3067, resolution=1.0, size=64)
TILES, BATCH, EPOCHS, RATE = 400, 8, 8, 5e-3
ROAD = f"SELECT ST_Buffer(way, width / 2) AS geom FROM ({STREETS}) AS s WHERE ST_DWithin(way, tile.geom, 15)"
ROOFS = f"""
    SELECT ST_Area(ST_Union(ST_Intersection(way, tile.geom))) / ST_Area(tile.geom) AS value
    FROM {PREFIX}_polygon, tile WHERE building IS NOT NULL AND ST_Intersects(way, tile.geom) GROUP BY tile.geom
"""
LAYERS = {"image": Imagery(f"{PREFIX}_aerial"), "road": Labels(ROAD), "roofs": Value(ROOFS, missing=0)}
say = Console(highlight=False, soft_wrap=True).print


class TwoHeads(nn.Module):
    """Images (B, 3, H, W) to logits of road (B, 2, H, W) and a share of roofs (B,)."""

    def __init__(self, width: int = 12):
        super().__init__()
        self.body = UNet(3, width=width)
        self.road, self.body.head = nn.Conv2d(width, 2, 1), nn.Identity()
        self.roofs = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )  # at each pixel; the mean counts

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = self.body(image)
        return {"road": self.road(x), "roofs": self.roofs(x).sigmoid().mean((1, 2, 3))}


def main(output: Path = Path("two_heads.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS) -> dict[str, float]:
    """Train on most blocks of the city, test on the others, draw. Gives both figures, and those of a plain guess."""
    db = ready(database(url))
    split = Tiles.random(GRID, within=CITY, count=TILES, seed=2).split(train=0.7, test=0.3, block=450, gap=8, seed=2)
    dataset = TileDataset(db, split.train, LAYERS, batch_size=BATCH, seed=seed, transform=augment)
    known = read(db, split.train, {"roofs": LAYERS["roofs"]})["roofs"]
    test = {key: torch.from_numpy(array) for key, array in read(db, split.test, LAYERS).items()}
    everything, middle = torch.ones_like(test["road"]), torch.full_like(test["roofs"], float(known.mean()))
    road, roofs = fit(dataset, test["image"], seed, epochs)
    dataset.close()
    scores = {
        "IoU, all road": iou(everything, test["road"]), "IoU": iou(road, test["road"]),
        "error, always the mean": off(middle, test["roofs"]).item(), "error": off(roofs, test["roofs"]).item(),
    }  # fmt: skip
    say(f"Streets in {len(road)} test tiles: IoU {scores['IoU']:.2f}; were everything street, {scores['IoU, all road']:.2f}")
    say(f"Share of roofs: off by {scores['error']:.3f}; the training tiles' mean by {scores['error, always the mean']:.3f}")
    picture(test, road, roofs, output)
    say(f"Picture: {output.resolve()}")
    return scores


def augment(sample: dict, generator: torch.Generator) -> dict:
    """Turned and mirrored one of the eight ways, image and mask alike. The share stays."""
    turns, mirror = (int(torch.randint(n, (), generator=generator)) for n in (4, 2))
    for key in ("image", "road"):
        turned = sample[key].rot90(turns, (-2, -1))
        sample[key] = turned.flip(-1) if mirror else turned
    return sample


def fit(dataset: TileDataset, images: Tensor, seed: int, epochs: int) -> tuple[Tensor, Tensor]:
    """Train both heads at once, and give both answers for the test tiles."""
    torch.manual_seed(seed)
    model = TwoHeads().to(memory_format=torch.channels_last)  # faster on a CPU
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * len(dataset))
    loader = dataset.loader()
    for _ in range(epochs):
        for batch in loader:
            found = model(batch["image"])
            loss = nn.functional.cross_entropy(found["road"], batch["road"]) + off(found["roofs"], batch["roofs"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        found = [model(part) for part in images.split(BATCH)]
    return torch.cat([part["road"].argmax(1) for part in found]), torch.cat([part["roofs"] for part in found])


def iou(found: Tensor, truth: Tensor) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def off(found: Tensor, truth: Tensor) -> Tensor:
    """The mean absolute error."""
    return (found - truth).abs().mean()


def picture(test: dict, road: Tensor, roofs: Tensor, output: Path) -> None:
    """Test tiles from few to many roofs: image, true and found streets, and both shares."""
    chosen = test["roofs"].argsort()[torch.linspace(0.1, 0.9, 4).mul(len(roofs)).long()]
    shown = {"image": test["image"], "truth": test["road"], "prediction": road}
    figure = plot.batch({key: value[chosen] for key, value in shown.items()}, classes={1: "street"})
    for axis, tile in zip(figure.axes[::3], chosen.tolist(), strict=True):
        axis.set_ylabel(f"roofs {test['roofs'][tile]:.0%}, found {roofs[tile]:.0%}", fontsize=9)
    figure.suptitle("Helsinki, test tiles. Map data © OpenStreetMap contributors", fontsize=10)
    plot.save(figure, output)


if __name__ == "__main__":
    typer.run(main)
