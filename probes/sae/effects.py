"""What features do in a live model: ablated and steered, beside what random features of the same size do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from probes.capture.observe import Reading
from probes.capture.progress import Report
from probes.errors import InputError, unknown_name
from probes.models.completions import require_language_model
from probes.sae.edits import ablate_feature, check_feature, steer_feature
from probes.sae.effect_batches import Tried
from probes.sae.effect_trials import COLUMNS, MEASURES, EffectOptions, trials_of
from probes.sae.estimator import SparseAutoencoder
from probes.sae.live import LiveAutoencoder
from probes.sae.matched import feature_activity
from probes.sae.splice import Where
from probes.tables import typed

if TYPE_CHECKING:
    from probes.models import Model

__all__ = [
    "COLUMNS",
    "EffectOptions",
    "ablate_feature",
    "feature_effects",
    "steer_feature",
]


def feature_effects(
    model: Model,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    site: str,
    layer: int,
    features: Sequence[int],
    *,
    modes: Sequence[str] = ("ablate", "steer"),
    promoted: Mapping[int, Sequence[int]] | None = None,
    options: EffectOptions | None = None,
    progress: bool | Report = False,
) -> pd.DataFrame:
    """What ablating and steering each of `features` does to the model's predictions, beside random features.

    Rows of mode "ablate", measure `logprob_change`: the change in nats of the log-probability of the next token, after
    tokens where the feature is active and is taken away (null strength; negative: the feature helps to predict). Mode
    "steer", `up_tokens_logit`: how much the mean logit of the feature's promoted tokens rises over the mean of all
    logits, when the feature is added to every token with a strength of `options.strengths`.

    The control is the mean of `options.controls` random living features of about equal density and activation (see
    `matched_features`): the same lengths, in units of the states, are taken away or added at the same tokens along
    their directions. When steering, each is judged by its *own* promoted tokens, as many as the feature's; every
    direction moves its own tokens most, so on the feature's tokens any control would lose. `difference` is value −
    control_value, and `control_low` to `control_high` is where a further random feature would lie, see `compared`: a
    random feature differs in 5 % of cases.

    What a difference shows: ablated, that this direction, at these tokens, matters to the predictions more or less than
    random ones of equal size; steered, that it moves its promoted tokens more (or less) than others of equal size move
    theirs. Not shown: that the model uses the feature so, that it stands for what its tokens or texts suggest, that no
    other feature does the same. Controls are not active at the tokens where ablation is tried, as the feature is.

    Parameters
    ----------
    texts : ones that the autoencoder was not trained on. layer : a block for the sites of a block.
    promoted : feature -> token ids that steering is judged by; None: the ten of `logit_weights`. Controls keep to
        theirs: chosen tokens that a direction does not promote most lose against them.
    progress : a bar, or called with (texts done, texts).

    Returns a DataFrame with the columns `COLUMNS`. `low` to `high`: mean ± t · standard error over texts (tokens of a
    text are one draw). Intervals are null for fewer than three texts. n is the number of tokens; with 0 there is no
    value. `controls`: how many there were; fewer than asked for where fewer are alive and unlike the feature, and none,
    a null control, below two: `why` says so. Passes begin at the layer, and ablation runs only the texts in which the
    feature is active.

    Raises what `loss_recovered` raises, `InputError` for features and modes that do not exist, and without `promoted`
    what `logit_weights` raises.
    """
    require_language_model(model)
    o = options or EffectOptions()
    chosen = [check_feature(sae, one) for one in dict.fromkeys(features)]
    if not chosen:
        raise InputError("no feature was asked for: name at least one")
    for mode in modes:
        if mode not in MEASURES:
            raise unknown_name("mode", mode, MEASURES)
    reading = Reading.of(
        model, texts, max_length=o.max_length, special_tokens=False, batch_tokens=o.batch_tokens
    )
    place = Where(model, site, layer, o.keep_first)
    activity = feature_activity(replace(place, longest=o.longest), sae, reading)
    trials = trials_of(place, sae, activity, chosen, modes, promoted, o)
    coder = LiveAutoencoder.of(sae, model.device)
    reading.run(
        lambda batch: Tried(place, coder, batch, chosen, o.longest).all(trials, o), progress
    )
    return typed(
        pd.DataFrame([t.row(o) for t in trials], columns=list(COLUMNS), dtype=object),
        integers=("feature", "n", "seed", "controls"),
        words=("mode", "measure", "why"),
    )
