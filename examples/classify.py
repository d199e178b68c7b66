"""Say what covers most of a chip of 64 m in Helsinki: houses, a park, or neither. The class is one SQL aggregate a chip.

`Value` gives a number for each tile, so the batch is what any image classifier takes. The city is helsinki.py's, painted from
OpenStreetMap; what seeing shapes is worth is told by a model that sees only how often each chip has which colour.
"""

from pathlib import Path

import torch
import typer
from helsinki import CITY, PREFIX, database, ready
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor, nn

from pgtiles import Grid, Imagery, TileDataset, Tiles, Value, plot, read

GRID = Grid(srid=3067, resolution=1.0, size=64)
TILES, BATCH, EPOCHS = 600, 16, 10
NAMES = ("street or square", "houses", "park")

# Houses may overlap parks, and parts of houses the houses: each square metre counts once for each class. What neither covers
# is the rest; ties go to the lower class.
MOST = f"""
    WITH cover AS (
        SELECT CASE WHEN building IS NULL THEN 2 ELSE 1 END AS class, ST_Area(ST_Union(ST_Intersection(way, tile.geom))) AS area
        FROM {PREFIX}_polygon, tile
        WHERE (building IS NOT NULL OR leisure IN ('park', 'garden')) AND ST_Intersects(way, tile.geom)
        GROUP BY class
    )
    SELECT class AS value FROM (
        TABLE cover UNION ALL SELECT 0, ST_Area(tile.geom) - (SELECT coalesce(sum(area), 0) FROM cover) FROM tile
    ) AS c
    ORDER BY area DESC, class LIMIT 1
"""
LAYERS = {"image": Imagery(f"{PREFIX}_aerial"), "label": Value(MOST, dtype="int64")}
say = Console(highlight=False, soft_wrap=True).print


def main(output: Path = Path("classify.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS) -> dict[str, float]:
    """Train on most blocks of the city, test on the others, draw. Gives the shares of chips told right, three ways."""
    db = ready(database(url))
    split = Tiles.random(GRID, within=CITY, count=TILES, seed=2).split(train=0.7, test=0.3, block=450, gap=8, seed=2)
    dataset = TileDataset(db, split.train, LAYERS, batch_size=BATCH, seed=seed, transform=augment)
    test = {key: torch.from_numpy(array) for key, array in read(db, split.test, LAYERS).items()}
    share = test["label"].bincount(minlength=len(NAMES)) / len(test["label"])
    torch.manual_seed(seed)
    colour = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 32, 1, stride=4), nn.ReLU(), *head(32))
    shapes = nn.Sequential(nn.BatchNorm2d(3, affine=False), *block(3, 16), *block(16, 32), *block(32, 64), *head(64))
    accuracy = {"the commonest class": share.max().item()}
    for name, model in {"colour alone": colour, "the small network": shapes}.items():
        found = fit(model, dataset, test["image"], epochs)
        accuracy[name] = (found == test["label"]).float().mean().item()
    dataset.close()
    say(
        f"{len(split.train)} chips to train on, {len(test['label'])} to test on: "
        f"{told(dict(zip(NAMES, share.tolist(), strict=True)))}"
    )
    say(f"Told right: {told(accuracy)}")
    picture(test["image"], test["label"], found, output)
    say(f"Picture: {output.resolve()}")
    return accuracy


def told(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """A convolution that halves height and width."""
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def head(inputs: int) -> tuple[nn.Module, ...]:
    """The mean over the chip, and from it a logit for each class."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(inputs, len(NAMES))


def augment(sample: dict, generator: torch.Generator) -> dict:
    """Turned and mirrored one of the eight ways. The label stays."""
    turns, mirror = (int(torch.randint(n, (), generator=generator)) for n in (4, 2))
    image = sample["image"].float().rot90(turns, (-2, -1))
    return sample | {"image": image.flip(-1) if mirror else image}


def fit(model: nn.Module, dataset: TileDataset, images: Tensor, epochs: int) -> Tensor:
    """Train, and give the likeliest class of each test chip."""
    dataset.set_epoch(0)
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=epochs * len(dataset))
    loader = dataset.loader()
    for _ in range(epochs):
        for batch in loader:
            loss = nn.functional.cross_entropy(model(batch["image"]), batch["label"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    with torch.no_grad():
        return model.eval()(images.float()).argmax(1)


def picture(images: Tensor, truth: Tensor, found: Tensor, output: Path) -> None:
    """Four test chips of each class, with what was found where that is something else."""
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots(len(NAMES), 4)
    shown = plot.stretched(images.numpy())
    for row, name in enumerate(NAMES):
        for axis, chip in zip(axes[row], (truth == row).nonzero()[:, 0].tolist(), strict=False):
            axis.imshow(shown[chip])
            right = found[chip] == row
            axis.set_title(name if right else f"{name}: {NAMES[found[chip]]}?", fontsize=8, color="black" if right else "red")
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle("Helsinki, test chips. Map data © OpenStreetMap contributors", fontsize=10)
    plot.save(figure, output)


if __name__ == "__main__":
    typer.run(main)
