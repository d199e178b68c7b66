"""How long an accelerator waits for tiles: a U-Net is trained on a stream that comes just as the loader gave it.

    python benchmarks/feed_gpu.py record stream.pt    # beside the database of make bench
    python benchmarks/feed_gpu.py train stream.pt     # where the accelerator is; it needs torch alone

What is recorded are some batches and the moments at which a whole run of them arrived. They are replayed from pinned memory, so
that the machine with the accelerator need not be the one with the database.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from queue import Queue
from threading import Thread

import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from unet import UNet

KEPT, BATCH = 12, 16  # batches whose pixels are kept: 50 MB of 256-px tiles


def record(path: Path, url: str | None, batches: int) -> None:
    """Read batches of image and mask, and keep when each came, in seconds from the first one on."""
    from scene import ROADS  # only here is a database needed

    from pgtiles import Database, Grid, Imagery, Labels, TileDataset, Tiles

    db = Database(url)
    grid = Grid.like(db, "bench_scene", size=256)
    tiles = Tiles.random(grid, within=db.extent("bench_scene", grid.srid), count=batches * BATCH, seed=0)
    layers = {"image": Imagery("bench_scene"), "mask": Labels(ROADS, dtype="uint8")}
    kept, arrived = [], []
    for batch in TileDataset(db, tiles, layers, batch_size=BATCH).loader():
        arrived.append(time.perf_counter())
        kept += [(batch["image"], batch["mask"])] if len(kept) < KEPT else []
    torch.save({"batches": kept, "arrived": [t - arrived[0] for t in arrived]}, path)
    print(f"{path}: {len(arrived)} batches at {BATCH * (len(arrived) - 1) / (arrived[-1] - arrived[0]):.0f} tiles/s")


def train(path: Path, width: int) -> dict[str, float]:
    """Train from the stream: its tiles/s, the share of time that the accelerator waited, the tiles/s that it could take."""
    stream, device = torch.load(path), torch.device("cuda")
    batches = [(image.pin_memory(), mask.pin_memory()) for image, mask in stream["batches"]]
    model = UNet(channels=3, width=width).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def step(image: torch.Tensor, mask: torch.Tensor) -> None:
        image, mask = image.to(device, non_blocking=True), mask.to(device, non_blocking=True)
        with torch.autocast("cuda", torch.bfloat16):
            loss = cross_entropy(model(image.to(memory_format=torch.channels_last)), mask.long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def rate(count: int) -> float:
        """Tiles a second of batches that are there already."""
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for k in range(count):
            step(*batches[k % len(batches)])
        torch.cuda.synchronize()
        return BATCH * count / (time.perf_counter() - begun)

    rate(50)  # kernels are chosen, memory is taken
    most = rate(400)
    queue: Queue[int] = Queue(4)  # as many as a loader holds ready

    def replay() -> None:
        begun = time.perf_counter()
        for k, at in enumerate(stream["arrived"]):
            time.sleep(max(0.0, begun + at - time.perf_counter()))
            queue.put(k % len(batches))

    Thread(target=replay, daemon=True).start()
    begun, busy = time.perf_counter(), 0.0
    for _ in stream["arrived"]:
        image, mask = batches[queue.get()]
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        step(image, mask)
        last.record()
        last.synchronize()
        busy += first.elapsed_time(last) / 1000
    wall = time.perf_counter() - begun
    found = {"stream": BATCH * len(stream["arrived"]) / wall, "waited": 1 - busy / wall, "could": most, "width": width}
    print(json.dumps(found | {"device": torch.cuda.get_device_name()}))
    return found


def main() -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "train"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--url", help="of the database in which make bench made its scene")
    parser.add_argument("--batches", type=int, default=400, help="in the stream")
    parser.add_argument("--width", type=int, nargs="+", default=[16, 64], help="of the U-Net's first level")
    options = parser.parse_args()
    if options.what == "record":
        record(options.path, options.url, options.batches)
    elif not torch.cuda.is_available():
        sys.exit("there is no accelerator here: train where torch.cuda finds one")
    else:
        for width in options.width:
            train(options.path, width)


if __name__ == "__main__":
    main()
