"""Learn from one's errors: a second round of training, drawn from the tiles that the first one got wrong, in Helsinki.

After the first round, the loss on each tile is kept as a row of a table, beside the tile's place and the round's name. A query
over that table gives the tiles of the second round, and the losses their weights. Another second round, on all tiles alike and
from the same model, tells what the choice is worth: on the tiles that were hardest, and on land that was not trained on.
"""

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import typer
from demo import database
from helsinki import CITY, LAYERS, NAMES, PREFIX, ready
from rich.console import Console
from torch import nn

from pgtiles import Database, Grid, TileDataset, Tiles, keep_errors, plot, read

ERRORS = f"{PREFIX}_errors"
TILES, BATCH, EPOCHS, RATE = 240, 8, 3, 1e-2
HARDEST = 0.25  # of the tiles of the first round
say = Console(highlight=False, soft_wrap=True).print


def main(
    output: Path = Path("hard_examples.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS
) -> dict[str, float]:
    """Train a round, keep its errors, train a second one drawn from them, beside one that is not; draw the hardest tiles."""
    db = ready(database(url))
    grid = Grid.like(db, f"{PREFIX}_aerial", size=64)
    split = Tiles.random(grid, within=CITY, count=TILES, seed=2).split(train=0.7, test=0.3, block=450, gap=8, seed=2)
    torch.manual_seed(seed)
    model = small()
    fit(model, TileDataset(db, split.train, LAYERS, batch_size=BATCH, seed=seed), epochs)
    losses, _ = look(model, db, split.train)
    keep_errors(db, ERRORS, split.train, losses, run="round 1")

    known = f"SELECT geom, tile AS id, value AS loss FROM {ERRORS} WHERE run = 'round 1' ORDER BY value DESC, tile"
    tiles = Tiles.query(db, grid, known)  # the same tiles, by their ids, the hardest first
    hardest = tiles[: int(HARDEST * len(tiles))]
    rounds = {"all alike": tiles, "drawn by their loss": tiles.weighted(tiles.columns["loss"] ** 2)}
    drawn = rounds["drawn by their loss"].epoch(seed, 0).columns["loss"].mean()
    say(f"loss of a tile: {losses.mean():.2f}; of one that is drawn by it: {drawn:.2f}")
    scores = {
        "loss": losses.mean().item(),
        "loss, drawn": float(drawn),
        "hardest before": hardest.columns["loss"].mean().item(),
    }
    for name, chosen in rounds.items():
        again = deepcopy(model)
        fit(again, TileDataset(db, chosen, LAYERS, batch_size=BATCH, seed=seed + 1), epochs)
        hard, shown = look(again, db, hardest)
        other, _ = look(again, db, split.test)
        keep_errors(db, ERRORS, hardest, hard, run=f"round 2, {name}")
        scores |= {f"hardest, {name}": hard.mean().item(), f"unseen, {name}": other.mean().item()}
        say(f"second round, {name}: loss on the hardest tiles {hard.mean():.3f}, on unseen land {other.mean():.3f}")
    sample = read(db, hardest[:4], LAYERS) | {"prediction": shown[:4]}
    title = "The tiles that the first round got most wrong, after the second. Map data © OpenStreetMap contributors"
    plot.batch(sample, output, classes=dict(enumerate(NAMES)), title=title)
    say(f"Picture: {output.resolve()}")
    return scores


def small() -> nn.Module:
    """A network that sees 9 × 9 pixels, which is enough to show rounds that take a second or two."""
    wide = nn.Conv2d(16, 24, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv2d(24, len(NAMES), 1)
    return nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), *wide)


def fit(model: nn.Module, dataset: TileDataset, epochs: int) -> None:
    """Train for some epochs."""
    optimiser = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * len(dataset))
    model.train()
    for _ in range(epochs):
        for batch in dataset.loader():
            loss = nn.functional.cross_entropy(model(batch["image"].float()), batch["mask"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    dataset.close()


@torch.no_grad()
def look(model: nn.Module, db: Database, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
    """The loss on each tile, and the likeliest classes."""
    losses, classes = [], []
    model.eval()
    dataset = TileDataset(db, tiles, LAYERS, batch_size=BATCH, shuffle=False)
    for batch in dataset.loader():
        logits = model(batch["image"].float())
        losses.append(nn.functional.cross_entropy(logits, batch["mask"], reduction="none").mean((1, 2)))
        classes.append(logits.argmax(1))
    dataset.close()
    return torch.cat(losses).numpy(), torch.cat(classes).numpy()


if __name__ == "__main__":
    typer.run(main)
