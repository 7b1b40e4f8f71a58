"""Progress of long work: a bar with rate and time left, or the caller's own function."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

Report = Callable[[int, int], None]


@contextmanager
def progress_bar(
    progress: bool | Report, total: int, done: int, unit: str
) -> Generator[Callable[[int], None]]:
    """A function that takes how many more are done. `progress`: False, True (a bar on stderr), or f(done, total).

    Work found done at the start (`done`) counts for the bar and not for the rate.
    """
    if progress is True:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskID,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task: TaskID = bar.add_task("capture", total=total, completed=done, rate="")

            def advance(more: int) -> None:
                speed = bar.tasks[0].speed
                rate = "" if not speed else f"{speed:,.1f} {unit}/s"
                bar.update(task, advance=more, rate=rate)

            yield advance
        return
    count = done

    def tell(more: int) -> None:
        nonlocal count
        count += more
        if progress:
            progress(count, total)

    yield tell
