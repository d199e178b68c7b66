"""Trainings that the tests kill, interrupt and restart; each runs in a process of its own.

As a program: `trainer.py <url> <workers>` opens the dataset, says "opened", and reads once it is told a line.
"""

import json
import os
import sys
import time
from pathlib import Path

import streams
import torch
import torch.distributed as dist

EPOCHS, FEW = 2, 60


def started(workers, method="fork", pause=0.0):
    """How workers start, said aloud: what a forkserver starts would itself start one."""
    return {"multiprocessing_context": method} if workers else {}


def train(url, folder, workers, method="fork", pause=0.0, stop=None):
    """Two epochs, with a checkpoint after every step: what a model has learnt is here what it has seen.

    stop: after so many steps, wait to be killed.
    """
    dataset = streams.dataset(url, count=FEW)
    loader = dataset.loader(num_workers=workers, **started(workers, method))
    file, seen = Path(folder, "checkpoint.json"), []
    if file.exists():
        kept = json.loads(file.read_text())
        dataset.load_state_dict(kept["dataset"])
        seen = kept["seen"]
    for _ in range(dataset.epoch, EPOCHS):
        for batch in loader:
            seen += streams.digest([batch])
            new = file.with_suffix(".new")
            new.write_text(json.dumps({"dataset": dataset.state_dict(), "seen": seen}))
            new.replace(file)
            time.sleep(600 if len(seen) == stop else pause)
    dataset.close()


def rank(url, folder, number, world):
    """One epoch of a rank: each step ends when all ranks have come to it, as a step of training does."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=world)
    dataset = streams.dataset(url, batch_size=streams.BATCH // world)
    seen, met = [], torch.zeros(1)
    for batch in dataset.loader(num_workers=2, persistent_workers=False, **started(2)):
        Path(folder, f"begun{number}").touch()
        dist.all_reduce(met.fill_(1))
        assert met == world
        seen += streams.digest([batch])
    stats = dataset.stats()
    Path(folder, f"rank{number}.json").write_text(json.dumps({"seen": seen, "retries": stats.retries}))
    dist.barrier()
    dist.destroy_process_group()
    dataset.close()


def endure(url, folder, workers, epochs):
    """Many epochs; notes the resident memory of this process and its workers after each."""
    import multiprocessing

    dataset = streams.dataset(url, count=120)
    loader = dataset.loader(num_workers=workers, **started(workers))
    notes = []
    for _ in range(epochs):
        for _ in loader:
            pass
        notes.append(sum(map(resident, [os.getpid(), *(child.pid for child in multiprocessing.active_children())])))
    del loader
    dataset.close()
    Path(folder, "memory.json").write_text(json.dumps(notes))
    until_told = Path(folder, "seen")
    while not until_told.exists():  # so that connections that are left can be seen
        time.sleep(0.02)


def resident(pid):
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    loader = streams.dataset(sys.argv[1]).loader(num_workers=int(sys.argv[2]))
    print("opened", flush=True)
    sys.stdin.readline()
    while True:
        for _ in loader:
            pass
