"""Fine-tune a network of segmentation_models_pytorch on imagery that has more bands than the three it was made for.

Here the fourth band is the map: the streets of OpenStreetMap, burned by `Vectors`, beside the three of helsinki.py's painted
city; the network finds houses. The first convolution is widened to whatever bands come. Needs segmentation_models_pytorch;
`--weights imagenet` starts from weights that it downloads, without it from random ones.
"""

from pathlib import Path

import segmentation_models_pytorch as smp
import torch
import typer
from helsinki import CITY, PREFIX, STREETS, database, ready
from rich.console import Console
from torch import Tensor, nn

from pgtiles import Grid, Imagery, Labels, TileDataset, Tiles, Vectors, plot, read

GRID = Grid(srid=3067, resolution=1.0, size=96)
TILES, BATCH, EPOCHS, RATE = 150, 8, 5, 2e-3
LAYERS = {
    "aerial": Imagery(f"{PREFIX}_aerial"),
    "streets": Vectors(
        {"street": f"SELECT ST_Buffer(way, 3) AS geom FROM ({STREETS}) AS s WHERE ST_DWithin(way, tile.geom, 3)"}
    ),
    "mask": Labels(f"{PREFIX}_polygon", where="building IS NOT NULL AND coalesce(layer, '0') NOT LIKE '-%'"),
}
say = Console(highlight=False, soft_wrap=True).print


def widened(conv: nn.Conv2d, bands: int) -> nn.Conv2d:
    """The convolution for so many bands: the first keep their weights, further ones get their mean (as do all, if fewer).

    Then they are scaled, so that a grey picture, the same in all bands, gives what it gave before.
    """
    out = nn.Conv2d(
        bands, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
        bias=conv.bias is not None, padding_mode=conv.padding_mode,
    )  # fmt: skip
    known = conv.in_channels
    kept, mean = conv.weight[:, : known if bands >= known else 0], conv.weight.mean(1, keepdim=True)
    with torch.no_grad():
        out.weight.copy_(torch.cat([kept, mean.expand(-1, bands - kept.shape[1], -1, -1)], 1) * (known / bands))
        if conv.bias is not None:
            out.bias.copy_(conv.bias)
    return out


def main(
    output: Path = Path("pretrained.png"),
    seed: int = 0,
    url: str | None = None,
    epochs: int = EPOCHS,
    weights: str | None = None,
) -> dict[str, float]:
    """Train on most blocks of the city, test on the others, draw. Gives the IoU of houses, and that of a plain guess."""
    db = ready(database(url))
    split = Tiles.random(GRID, within=CITY, count=TILES, seed=2).split(train=0.7, test=0.3, block=450, gap=0, seed=2)
    dataset = TileDataset(db, split.train, LAYERS, batch_size=BATCH, seed=seed)
    bands = sum(layer.sheet.shape[0] for layer in dataset.plan.layers if layer.name in ("aerial", "streets"))
    torch.manual_seed(seed)
    model = smp.Unet("resnet18", encoder_weights=weights, decoder_channels=(96, 64, 32, 16, 8), classes=1)
    model.encoder.conv1 = widened(model.encoder.conv1, bands)
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * len(dataset))
    criterion = smp.losses.DiceLoss("binary")
    loader = dataset.loader()
    for epoch in range(1, epochs + 1):
        for batch in loader:
            loss = criterion(model(stacked(batch)), batch["mask"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        say(f"epoch {epoch}  loss {loss.item():.2f}")
    dataset.close()
    test = {key: torch.from_numpy(array) for key, array in read(db, split.test, LAYERS).items()}
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(part)[:, 0] > 0 for part in stacked(test).split(BATCH)]).long()
    scores = {"everything": iou(torch.ones_like(found), test["mask"]), "found": iou(found, test["mask"])}
    say(f"IoU of houses in {len(found)} test tiles: {scores['found']:.2f}; were everything house, {scores['everything']:.2f}")
    picture = {"image": test["aerial"], "truth": test["mask"], "prediction": found}
    title = "Helsinki, test tiles. Map data © OpenStreetMap contributors"
    plot.batch(picture, output, classes={1: "house"}, title=title)
    say(f"Picture: {output.resolve()}")
    return scores


def stacked(batch: dict) -> Tensor:
    """Imagery and map as one image (B, 4, H, W), all bands about 0 and about as wide."""
    return torch.cat([(batch["aerial"].float() - 110) / 50, 2 * batch["streets"].float() - 1], dim=1)


def iou(found: Tensor, truth: Tensor) -> float:
    return float((found & truth).sum() / (found | truth).sum())


if __name__ == "__main__":
    typer.run(main)
