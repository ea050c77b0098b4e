"""What scorers of buyers work with, and what each of them must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from sqlalchemy import Connection

from kernel.settings import Settings
from kernel.vocabulary import Subject
from segments.figures import Figures, Origin, read_figures
from segments.models import STANDING, Fit, Model, ModelKind, ModelState
from segments.profiles import Column, Rows, Words
from segments.purchases import Ints
from store.columns import NULL_INT


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Clusters computed elsewhere: ids of subjects and the label of each, named as the model they are of.

    `approved`: take them over however many buyers they move.
    """

    named: str
    ids: Ints
    labels: tuple[str, ...]
    approved: bool = False

    def of(self, figures: Figures) -> list[str | None]:
        """Return the label of each scored unit, None where it was given none."""
        return self._find(figures.purchases.ids)

    def positions(self, figures: Figures, words: Words) -> Ints:
        """Return the label of everybody who gets a profile as a position among the words; NULL_INT for none."""
        places = {word: place for place, word in enumerate(words.of("cluster"))}
        found = self._find(figures.subject_ids)
        return np.array([NULL_INT if label is None else places[label] for label in found], dtype=np.int64)

    def _find(self, ids: Ints) -> list[str | None]:
        own = dict(zip(self.ids.tolist(), self.labels, strict=True))
        return [own.get(one) for one in ids.tolist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What scorers work with: the facts behind a connection, settings, whom and when, and the versions kept so far.

    `labels` are clusters computed elsewhere that are to be taken over now.
    """

    connection: Connection
    settings: Settings
    subject: Subject
    now: datetime
    kept: Sequence[Model]
    origin: Origin
    labels: Labels | None = None

    def standing(self, kind: ModelKind) -> Model | None:
        """Return the version of a kind that stands."""
        return self._newest(kind, STANDING)

    def held(self, kind: ModelKind) -> Model | None:
        """Return the version of a kind that waits for approval."""
        return self._newest(kind, (ModelState.HELD,))

    def last_applied(self, kind: ModelKind) -> Model | None:
        """Return the newest version of a kind that has ever scored everybody; refused ones score nobody."""
        mine = (one for one in self.kept if one.kind is kind and one.applied_at and one.parameters)
        return max(mine, key=lambda model: model.version, default=None)

    def figures(self, *, as_of: datetime, only: Ints | None = None) -> Figures:
        """Return the figures of another instant, of everybody or of some."""
        return read_figures(
            self.connection, self.settings.rfm, self.origin, subject=self.subject, as_of=as_of, only=only
        )

    def _newest(self, kind: ModelKind, states: tuple[ModelState, ...]) -> Model | None:
        mine = (model for model in self.kept if model.kind is kind and model.state in states)
        return max(mine, key=lambda model: model.version, default=None)


class Scorer(Protocol):
    """What is special about a kind of model."""

    def options(self, settings: Settings) -> dict[str, Any]:
        """Return the settings a fit depends on, as kept with it."""

    def refit_every(self, settings: Settings) -> str | None:
        """Return how long a fit stays good; None: for ever."""

    def fit(self, bench: Bench, figures: Figures) -> Fit:
        """Return a fit to the buyers, ready to be kept."""

    def drifted(self, bench: Bench, figures: Figures, model: Model) -> bool:
        """Return whether the buyers are no longer those the model was fitted to."""

    def apply(
        self,
        bench: Bench,
        figures: Figures,
        parameters: Mapping[str, Any],
        *,
        kept: Model | None,
        facts: Mapping[str, Column],
        held: Rows,
        words: Words,
    ) -> dict[str, Column]:
        """Return the columns of everybody who gets a profile; `kept` is the version applied, None: a fit made now."""
