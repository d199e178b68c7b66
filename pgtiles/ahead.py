"""Results in their order, while threads work on the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import get_ident
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

PATIENCE = 1.0  # seconds that work may take to end when nobody wants its result any more


def ahead(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, threads: int, interrupt: Callable[[Collection[int]], None]
) -> Iterator[Result]:
    """What the work makes of each task, in the tasks' order, by so many threads; twice as many tasks are under way at a time.

    interrupt: is called where the consumer stops, or a task fails, and others still are at work a second later; with the
    threads'
        identifiers.
    """
    waiting: deque[Future[Result]] = deque()
    workers = set[int]()

    def begin(task: Task) -> Result:
        workers.add(get_ident())
        return work(task)

    with ThreadPoolExecutor(threads, thread_name_prefix="pgtiles") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(begin, task))
                if len(waiting) > 2 * threads:
                    waiting[0].result()  # it is among those that wait until it is there
                    yield waiting.popleft().result()
            while waiting:
                waiting[0].result()
                yield waiting.popleft().result()
        finally:  # what has not begun is not worth doing, nor what has
            pool.shutdown(wait=False, cancel_futures=True)
            begun = [future for future in waiting if not future.cancelled()]
            if wait(begun, timeout=PATIENCE).not_done:  # most end by themselves, and their connections stay
                interrupt(workers)
