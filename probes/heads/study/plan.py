"""What a study of retrieval heads does, as one object that every part reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from probes.errors import InputError, unknown_name
from probes.heads.study.names import DEPTHS, KS, LENGTHS, MODES, PARTS


@dataclass(frozen=True)
class NeedlePlan:
    """What is hidden in the context: needles from a file (None: built-in ones), and how many others beside them.

    `several` needles lie in one context, of which one is asked for; `distractors` have the same form but another
    subject. `chat` is "auto" (a chat template where the tokenizer has one), "yes" or "no".
    """

    path: str | None = None
    several: int = 1
    distractors: int = 0
    chat: str = "auto"


@dataclass(frozen=True)
class TrialPlan:
    """How many trials at which lengths (tokens) and depths (0 the beginning, 1 the end of the context).

    `extras`: beside copy scores also attention from the question and contributions, at the cost of a second pass over
    the question. An encoder has nothing else, and always has them.
    """

    count: int = 50
    lengths: tuple[int, ...] = LENGTHS
    depths: tuple[float, ...] = DEPTHS
    mode: str = "forced"
    early_stop: bool = True
    needles: NeedlePlan = field(default_factory=NeedlePlan)
    extras: bool = True

    def __post_init__(self) -> None:
        if self.mode not in ("forced", "decode"):
            raise unknown_name("mode", self.mode, ("forced", "decode"))
        if not self.lengths or min(self.lengths) < 64:
            raise InputError(f"lengths {self.lengths}: numbers of tokens from 64 are needed")
        if not self.depths or not 0 <= min(self.depths) <= max(self.depths) <= 1:
            raise InputError(f"depths {self.depths}: numbers from 0 to 1 are needed")


@dataclass(frozen=True)
class AblationPlan:
    """Top-k heads against random ones: on how many trials, by which modes, against how many random sets.

    `single` heads are ablated one by one: half of them the best by score, half drawn from the rest.
    """

    ks: tuple[int, ...] = KS
    modes: tuple[str, ...] = MODES
    trials: int = 20
    random_sets: int = 10
    single: int = 20

    def __post_init__(self) -> None:
        if not self.modes:
            raise InputError(f"no ablation mode: at least one of {', '.join(MODES)} is needed")
        for mode in self.modes:
            if mode not in MODES:
                raise unknown_name("ablation mode", mode, MODES)
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"numbers of heads {self.ks}: whole numbers from 1 are needed")


@dataclass(frozen=True)
class HeadPlan:
    """Settings of a study of heads."""

    parts: frozenset[str] = frozenset(PARTS)
    trials: TrialPlan = field(default_factory=TrialPlan)
    ablations: AblationPlan = field(default_factory=AblationPlan)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.parts:
            if name not in PARTS:
                raise unknown_name("part", name, PARTS)
