"""Find the houses of a SpaceNet scene (Atlanta, 0.5 m) with a tiny detector. Its targets are boxes, which PostGIS cuts.

For each cell of 8 × 8 pixels the detector says how likely it is the middle of a house, and how far away the four sides of the
box are: an anchor-free head, as CenterNet and FCOS have it, on the U-Net of unet.py. The scene has 43 houses, half of them
under trees, so the figures are rough: they are told for land that the detector was trained on and for land that it has not
seen, each beside what as many boxes thrown at random find.
"""

from pathlib import Path

import torch
import typer
from demo import database
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from unet import UNet

from pgtiles import Boxes, Grid, Imagery, TileDataset, Tiles, load, plot, read

SRID, PIXEL, TEST_SHARE = 32616, 0.5, 1 / 3  # the eastern third of the scene is for testing
TILE, SCENE = (Grid(srid=SRID, resolution=PIXEL, size=size) for size in (192, 896))
CELL, SCALE = 8, 24.0  # pixels: of a cell, and about from a house's middle to its walls
TILES, BATCH, EPOCHS, RATE = 128, 8, 40, 5e-3
SURE, OVERLAP = 0.3, 0.5  # a house counts as found by a box of this heat and this intersection over union
LAYERS = {"image": Imagery("spacenet_atlanta"), "house": Boxes("spacenet_atlanta_buildings", min_overlap=0.3)}
say = Console(highlight=False, soft_wrap=True).print


def main(output: Path = Path("detect.png"), seed: int = 0, url: str | None = None, epochs: int = EPOCHS) -> dict[str, float]:
    """Load the scene, train on its west, search all of it, count what was found, draw. Gives precisions and recalls."""
    db = database(url)
    load.sample(db, "spacenet", replace=True)
    west, south, east, north = db.extent("spacenet_atlanta", SRID)
    border = east - TEST_SHARE * (east - west)
    train = Tiles.random(TILE, within=(west, south, border, north), count=TILES)
    dataset = TileDataset(db, train, LAYERS, batch_size=BATCH, seed=seed, transform=augment)
    whole = read(db, Tiles.sliding(SCENE, within=(west, south, east, north), stride=896)[:1], LAYERS)
    image, truth = torch.from_numpy(whole["image"]), torch.from_numpy(whole["house"][0])
    model = fit(dataset, seed, epochs)
    dataset.close()
    found = detect(model, image)
    found = found[found[:, 4] > SURE]
    cut = (border - whole["bounds"][0, 0]) / PIXEL
    scores = {}
    for land, low, high in (("seen", 0, cut), ("unseen", cut, 896)):
        boxes, houses = (b[((middle := (b[:, 0] + b[:, 2]) / 2) >= low) & (middle < high)] for b in (found, truth))
        hits = int(matched(boxes, houses).sum())
        thrown = sum(int(matched(throw(houses, len(boxes), low, high, k), houses).sum()) for k in range(100)) / 100
        scores |= {
            f"{land} precision": hits / max(len(boxes), 1),
            f"{land} recall": hits / len(houses),
            f"{land} thrown": thrown / len(houses),
        }
        say(f"{land} land: {len(boxes)} boxes find {hits} of {len(houses)} houses; thrown at random, {thrown:.1f}")
    picture(image[0, 0], truth, found, cut, output)
    say(f"Picture: {output.resolve()}")
    return scores


def augment(sample: dict, generator: torch.Generator) -> dict:
    """Turned and mirrored one of the eight ways, image and boxes alike; the image with more or less contrast and light."""
    image, box, side = sample["image"].float(), sample["house"], sample["image"].shape[-1]
    transposed, *mirrored = (bool(torch.randint(2, (), generator=generator)) for _ in range(3))
    if transposed:
        image, box = image.mT, box[:, [1, 0, 3, 2]]
    for axis in (0, 1):  # x, y
        if mirrored[axis]:
            image, box = image.flip(-1 - axis), box.clone()
            box[:, [axis, axis + 2]] = side - box[:, [axis + 2, axis]]
    contrast, light = torch.exp(0.2 * torch.randn(2, generator=generator))
    sample["image"] = ((image - image.mean()) * contrast + image.mean()) * light
    sample["house"] = box
    return sample


def targets(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """What the detector should say of boxes (N, 4): heat (H, W), 1 in the middle of each; how far its sides are, (4, H, W)."""
    if not len(boxes):
        return torch.zeros(height, width), torch.zeros(4, height, width)
    y, x = torch.meshgrid(CELL * (torch.arange(height) + 0.5), CELL * (torch.arange(width) + 0.5), indexing="ij")
    x0, y0, x1, y1 = boxes.T[:, :, None, None]
    away = ((2 * x - x0 - x1) / (x1 - x0)) ** 2 + ((2 * y - y0 - y1) / (y1 - y0)) ** 2  # 1 on the ellipse in the box
    heat, nearest = torch.exp(-2 * away).max(0)
    sides = torch.stack([x - x0, y - y0, x1 - x, y1 - y]) / SCALE
    return heat, sides.gather(1, nearest.expand(4, 1, -1, -1))[:, 0]


def criterion(output: Tensor, boxes: list[Tensor]) -> Tensor:
    """Of the heat, a focal cross-entropy; of the sides, their mean error where a house is."""
    heat, sides = (torch.stack(t) for t in zip(*(targets(b, *output.shape[-2:]) for b in boxes), strict=True))
    entropy = nn.functional.binary_cross_entropy_with_logits(output[:, 0], heat, reduction="none")
    focal = (entropy * (output[:, 0].sigmoid() - heat).abs() ** 2).sum()
    off = (heat[:, None] * (output[:, 1:] - sides).abs()).sum()
    return (4 * focal + off) / heat.sum().clamp(min=1)


def fit(dataset: TileDataset, seed: int, epochs: int) -> nn.Module:
    """Train a detector. Gives the running average of its weights."""
    torch.manual_seed(seed)
    halves = [
        layer
        for inputs, outputs in ((1, 16), (16, 24), (24, 16))
        for layer in (nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
    ]
    model = nn.Sequential(nn.BatchNorm2d(1, affine=False), *halves, UNet(16, classes=5, depth=2))
    model.to(memory_format=torch.channels_last)  # faster on a CPU
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.97), use_buffers=True)
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * len(dataset))
    loader = dataset.loader()
    for epoch in range(1, epochs + 1):
        for batch in loader:
            loss = criterion(model(batch["image"]), batch["house"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
        if epoch % 5 == 0:
            say(f"epoch {epoch:2}  loss {loss.item():.2f}")
    return average.eval()


@torch.no_grad()
def detect(model: nn.Module, image: Tensor) -> Tensor:
    """Boxes of one image and how sure they are, (N, 5), the surest first: where the heat peaks, and no surer box lies there."""
    output = model(image.float())[0]
    heat, sides = output[0].sigmoid(), SCALE * output[1:]
    rows, cols = ((heat > 0.05) & (heat == nn.functional.max_pool2d(heat[None], 3, 1, 1)[0])).nonzero(as_tuple=True)
    left, top, right, bottom = sides[:, rows, cols]
    x, y = CELL * (cols + 0.5), CELL * (rows + 0.5)
    boxes = torch.stack([x - left, y - top, x + right, y + bottom, heat[rows, cols]], 1)
    kept: list[Tensor] = []
    for box in boxes[boxes[:, 4].argsort(descending=True)]:
        if not kept or iou(box[None], torch.stack(kept)).max() < 0.3:
            kept.append(box)
    return torch.stack(kept) if kept else torch.zeros(0, 5)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of each box of `a` with each of `b`, (len(a), len(b))."""
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:4], b[None, :, 2:4])
    both = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = ((box[:, 2:4] - box[:, :2]).clamp(min=0).prod(-1) for box in (a, b))
    return both / (area_a[:, None] + area_b - both)


def matched(boxes: Tensor, houses: Tensor) -> Tensor:
    """Which boxes, the surest first, lie on a house that no surer one lies on, (N,) bool."""
    overlap, right = iou(boxes, houses), torch.zeros(len(boxes), dtype=torch.bool)
    for n, row in enumerate(overlap):
        if len(row) and row.max() >= OVERLAP:
            right[n] = True
            overlap[:, row.argmax()] = 0
    return right


def throw(houses: Tensor, count: int, low: float, high: float, seed: int) -> Tensor:
    """Boxes (count, 4) of the houses' sizes, anywhere on the land."""
    generator = torch.Generator().manual_seed(seed)
    size = (houses[:, 2:] - houses[:, :2])[torch.randint(len(houses), (count,), generator=generator)]
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([high - low, 896.0]) + torch.tensor([low, 0.0]) - size / 2
    return torch.cat([corner, corner + size], 1)


def picture(image: Tensor, truth: Tensor, found: Tensor, cut: float, output: Path) -> None:
    """The scene twice: the houses, and the boxes that were found."""
    figure = Figure(figsize=(11, 5.8), layout="constrained")
    shown = plot.stretched(image[None, None].numpy())[0]
    for axis, boxes, title in zip(figure.subplots(1, 2), (truth, found), ("houses", "found"), strict=True):
        axis.imshow(shown)
        for x0, y0, x1, y1 in boxes[:, :4].tolist():
            axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="#ffe119"))
        axis.axvline(cut, color="white", linestyle="--")
        axis.set(xticks=[], yticks=[], title=title)
    figure.suptitle("Atlanta: trained on what lies left of the line. Imagery: SpaceNet, CC BY-SA 4.0", fontsize=10)
    plot.save(figure, output)


if __name__ == "__main__":
    typer.run(main)
