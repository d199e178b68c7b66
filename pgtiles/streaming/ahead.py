"""Results in their order, while threads work on the next ones."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

PATIENCE = 1.0  # seconds that work may take to end when nobody wants its result any more


def ahead(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    threads: int,
    interrupt: Callable[[Collection[int]], None],
) -> Iterator[Result]:
    """What the work makes of each task, in the tasks' order, by so many threads; twice as many tasks are under way at a time.

    interrupt: is called where a task fails and others are still at work, or where the consumer stops and they are a second
    later;
        with the threads' identifiers, and again each second until they are done.

    The threads are daemons, because an executor's are waited for when the interpreter ends: after Ctrl-C in a shell or a
    notebook, whose traceback keeps the iterator, that would be all that is still to do.
    """
    todo = SimpleQueue[tuple[Future[Result], Task] | None]()
    waiting: deque[Future[Result]] = deque()

    def labour() -> None:
        while (job := todo.get()) is not None:
            future, task = job
            if future.set_running_or_notify_cancel():
                try:
                    result = work(task)
                except BaseException as error:  # it is raised where the result is asked for
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del job, future, task  # while it waits, it holds nothing

    workers = [threading.Thread(target=labour, daemon=True, name=f"pgtiles_{n}") for n in range(threads)]
    for worker in workers:
        worker.start()
    patience = PATIENCE
    try:
        for task in tasks:
            waiting.append(Future())
            todo.put((waiting[-1], task))
            if len(waiting) > 2 * threads:
                waiting[0].result()  # it is among those that wait until it is there
                yield waiting.popleft().result()
        while waiting:
            waiting[0].result()
            yield waiting.popleft().result()
    except GeneratorExit:
        raise
    except BaseException:
        patience = 0.0  # who raises has waited long enough
        raise
    finally:  # what has not begun is not worth doing, nor what has
        for future in waiting:
            future.cancel()
        for _ in workers:
            todo.put(None)
        for worker in workers:
            worker.join(patience)  # most end by themselves, and their connections stay
            while worker.is_alive():
                interrupt({one.ident for one in workers if one.ident and one.is_alive()})
                worker.join(PATIENCE)
