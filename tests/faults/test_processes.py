"""Faults 28 to 31 and 33: the training's own processes are killed, interrupted, or live long."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import streams
import trainer
from sabotage import SLACK
from streams import digest, globally
from waiting import until

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def begin():
    """Starts functions of `trainer`, each in a process that begins in no time and shares nothing with this one."""
    begun = []
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pgtiles.dataset"])

    def _begin(work, *arguments):
        process = context.Process(target=work, args=arguments)
        process.start()
        begun.append(process)
        return process

    yield _begin
    for process in begun:
        if process.is_alive():
            process.kill()
        process.join(10)


def ended(process, seconds=120):
    process.join(seconds)
    assert process.exitcode == 0, f"exit code {process.exitcode}"


def test_28_ranks(source, begin, want, row, tmp_path):
    """gloo, 2 ranks × 2 workers, a backend ended on each: equal steps, exact cover"""
    source.pace(0.3)
    names, busy = ["rank0", "rank1"], "application_name = '{}' AND state = 'active'"
    both = [
        begin(trainer.rank, source.url(application_name=name), str(tmp_path), number, 2) for number, name in enumerate(names)
    ]
    until(lambda: all((tmp_path / f"begun{number}").exists() for number in (0, 1)), 120, "the ranks don't begin")
    for _ in range(3):
        for name in names:
            ended_one = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {busy.format(name)} LIMIT 1"
            until(lambda ended_one=ended_one: source.ask(ended_one), 60, "no backend works")
    source.pace()
    for process in both:
        ended(process)
    told = [json.loads((tmp_path / f"rank{number}.json").read_text()) for number in (0, 1)]
    steps = [[[tuple(tile) for tile in tiles] for tiles in one["seen"]] for one in told]
    assert len(steps[0]) == len(steps[1])
    row.identical(globally(steps), want[0])
    assert all(one["retries"] for one in told)
    until(lambda: not source.backends("rank0") | source.backends("rank1"), 60, "backends are left")


@pytest.fixture(scope="module")
def unbroken(made):
    dataset = streams.dataset(made.url(), count=trainer.FEW, connections=1)
    epochs = [tiles for _ in range(trainer.EPOCHS) for tiles in digest(dataset)]
    dataset.close()
    return epochs


@pytest.mark.limit(600)
def test_29_sigkill_of_the_trainer(source, begin, unbroken, row, tmp_path):
    """SIGKILL of the trainer at a random step, restart from its checkpoint, 10 seeds"""
    source.pace(0.005)
    kills = 0
    for seed in range(10):
        rng, folder, workers = random.Random(seed), tmp_path / str(seed), seed % 3
        folder.mkdir()
        file = folder / "checkpoint.json"

        def steps(file=file):
            return len(json.loads(file.read_text())["seen"]) if file.exists() else 0

        for goal in sorted(rng.sample(range(1, len(unbroken) - 3), 1 + seed % 2)):
            process = begin(trainer.train, source.url(), str(folder), workers, "fork", 0.0, goal + 2)
            until(lambda goal=goal, steps=steps: steps() >= goal, 120, "no step was made")
            time.sleep(rng.uniform(0, 0.02))
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            kills += 1
        ended(begin(trainer.train, source.url(), str(folder), workers))
        seen = [[tuple(tile) for tile in tiles] for tiles in json.loads(file.read_text())["seen"]]
        assert seen == unbroken, f"seed {seed}"
    row.tell(f"identical, {kills} kills")
    until(lambda: not source.backends(), 60, "backends are left")


@pytest.mark.limit(400)
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_29_no_orphans(source, begin, row, tmp_path, method):
    """the same: its workers and their backends are gone within 2 s"""
    process = begin(trainer.train, source.url(), str(tmp_path), 2, method, 0.5)
    until((tmp_path / "checkpoint.json").exists, 120, "no step was made")
    source.pace(20)
    until(lambda: len(source.backends()) == 4 and "active" in source.backends().values(), 120, "nothing is read")
    process.kill()
    until(lambda: not source.backends(), 2 * SLACK, "backends are left")
    row.tell("gone")


def test_30_sigkill_of_a_worker(source, make, row, reaped):
    """SIGKILL of a DataLoader worker: its backends gone within 2 s, an error within 10 s"""
    loader = make().loader(num_workers=2, persistent_workers=False)
    source.pace(20)  # all backends are in the middle of a statement
    stream = iter(loader)
    until(lambda: list(source.backends().values()) == ["active"] * 4, 60)
    before = set(source.backends())
    torchs = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # it would raise here and now, and end the other worker too
    multiprocessing.active_children()[0].kill()
    killed = time.monotonic()
    left = until(lambda: len(source.backends()) == 2 and source.backends(), 2 * SLACK, "its backends are there after 2 s")
    assert set(left) < before
    signal.signal(signal.SIGCHLD, torchs)
    with row.raises(RuntimeError, match="DataLoader worker"):
        try:
            next(stream)
        finally:
            took = time.monotonic() - killed
    assert took < 10 * SLACK
    del stream
    until(lambda: not source.backends(), 60, "backends of the other worker are left")


def in_group(group):
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("workers", "slow"), [(0, 20), (2, 20), (2, 0.01)])
def test_31_ctrl_c(source, row, workers, slow):
    """Ctrl-C: out within 5 s, no backend at work, no process left"""
    url = source.url()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    command = [sys.executable, str(HERE / "trainer.py"), url, str(workers)]
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "opened\n"
        source.pace(slow)
        process.stdin.write("read\n")
        process.stdin.flush()
        source.active()
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of its processes
        begun = time.monotonic()
        _, said = process.communicate(timeout=100)
        took = time.monotonic() - begun
        assert took < 5 * SLACK, took
        assert process.returncode != 0
        assert "KeyboardInterrupt" in said
        until(lambda: not in_group(process.pid), 2 * SLACK, "a process is left")
        until(lambda: "active" not in source.backends().values(), 2 * SLACK, "a backend works on")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    row.tell("out, and nothing left")


@pytest.mark.parametrize("workers", [0, 2])
def test_33_endurance(source, begin, row, tmp_path, workers):
    """20 epochs: resident memory grows under 5 %, no connection after close"""
    process = begin(trainer.endure, source.url(), str(tmp_path), workers, 20)
    until((tmp_path / "memory.json").exists, 280, "it did not end")
    until(lambda: not source.backends(), 2 * SLACK, "connections are left")
    (tmp_path / "seen").touch()
    ended(process)
    notes = json.loads((tmp_path / "memory.json").read_text())
    first, last = max(notes[1:4]), max(notes[-3:])  # the first epochs fill caches and pools
    grown = last / first - 1
    row.tell(f"{100 * grown:+.1f} % of {first / 2**20:.0f} MB")
    assert grown < 0.05
