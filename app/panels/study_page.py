"""The page of one kind of study: what each run found in words and one table, then the figures of all runs shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from panels.elsewhere import elsewhere, how_to, shown_runs
from panels.sidebar import Choice
from panels.state import Shown
from panels.words import lines, section
from probes.report.tables import Table
from probes.report.text import sentence
from probes.report.verdict import verdict


@dataclass(frozen=True)
class StudyPage:
    """`asked` says whether a run is of this kind, `missed` what a run of another kind has not done, `command` how one
    is made; `table` draws a run's table of findings, `figures` the figures of all runs shown,
    `words` the sentences of a verdict."""

    analysis: str
    missed: str
    command: str
    asked: Callable[[Shown], bool]
    table: Callable[[Shown, Table], None]
    figures: Callable[[list[Shown]], None]
    words: Callable[[Sequence[str]], None] = lines

    def draw(self, choice: Choice) -> None:
        """The whole page for the sidebar's choice."""
        shown = shown_runs(choice, self.command, self._found)
        studied = [
            run for run in shown if run.view.problem is None and self.asked(run) and _measured(run)
        ]
        if studied:
            self.figures(studied)

    def _found(self, run: Shown) -> None:
        """What the run found in words and one table, or what to do where it found nothing."""
        if not self.asked(run):
            elsewhere(run, self.analysis, self.missed, self.command)
            return
        if not _measured(run):
            if run.status == "finished":
                how_to("This run measured nothing. Make one that does:", self.command)
            elif run.status == "running":
                st.text("Nothing has been measured yet; the page shows each part as it comes.")
            return
        told = run.data.once("verdict", lambda: verdict(run.data))
        if run.status == "finished":  # what else there is to say stands in the head
            section(sentence(told.headline))
            self.words(told.sentences)
        if told.table is not None:
            self.table(run, told.table)


def _measured(run: Shown) -> bool:
    return bool(run.data.table_names) or not run.data.measurements.empty
