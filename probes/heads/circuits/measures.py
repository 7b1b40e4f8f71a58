"""Numbers of a circuit study that are kept in the tidy table."""

from __future__ import annotations

from probes.registry import Measure, register_measure

_MIB = "Mueller et al. 2025 (MIB, arXiv 2504.13151)"

TASK_ACCURACY = register_measure(
    Measure(
        "task_accuracy",
        "Task accuracy",
        "",
        0.0,
        1.0,
        "up",
        "Share of the task's prompts at which the answer has a larger logit than the wrong one (means over both sets "
        "where there are several).",
        "Wang et al. 2022 (arXiv 2211.00593)",
        0.5,
    )
)
DIRECT_ATTRIBUTION = register_measure(
    Measure(
        "direct_logit_attribution",
        "Direct logit attribution",
        "logits",
        None,
        None,
        "none",
        "What a head writes straight onto the logit difference of answer and wrong answer, the scale of the final norm "
        "held at what it was.",
        "Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits)",
    )
)
ACTIVATION_PATCHING = register_measure(
    Measure(
        "activation_patching",
        "Activation patching",
        "",
        None,
        None,
        "none",
        "How much of the logit difference comes back when this head alone gets its output on the clean prompt, in a "
        "pass over the corrupted one; 0 nothing, 1 all of it.",
        "Meng et al. 2022 (arXiv 2202.05262); Heimersheim & Nanda 2024 (arXiv 2404.15255)",
    )
)
PATCHING_AGREEMENT = register_measure(
    Measure(
        "patching_agreement",
        "Attribution against activation patching",
        "",
        -1.0,
        1.0,
        "up",
        "Pearson correlation over places between attribution patching (integrated gradients) and activation "
        "patching.",
        "Syed et al. 2023 (arXiv 2310.10348); Hanna et al. 2024 (arXiv 2403.17806)",
    )
)
CPR = register_measure(
    Measure(
        "cpr",
        "Circuit performance ratio",
        "",
        None,
        None,
        "up",
        "Area under the faithfulness curve of heads ranked by signed score, those that help first: the mean, over "
        "shares of heads kept, of the logit difference that remains of the whole model's. MLPs stay intact.",
        _MIB,
    )
)
CMD = register_measure(
    Measure(
        "cmd",
        "Circuit-model distance",
        "",
        0.0,
        None,
        "down",
        "Area between 1 and the faithfulness curve of heads ranked by size of score, whatever its sign: how far "
        "circuits of all sizes are from doing as the whole model does. MLPs stay intact.",
        _MIB,
    )
)
ANSWER_SUPPRESSION = register_measure(
    Measure(
        "answer_suppression",
        "Suppression by the last layers",
        "nats",
        None,
        None,
        "none",
        "Mean log-probability of the answer at the best earlier layer, chosen on other pairs than those that it is "
        "measured on, less that at the output; below 0 where the output is best.",
        "Lv et al. 2024 (arXiv 2403.19521)",
    )
)
GRAPH_LEARNED = register_measure(
    Measure(
        "graph_energy_difference",
        "Dirichlet energy learned from the context",
        "",
        None,
        None,
        "none",
        "Dirichlet energy less that of the same last tokens after a walk on another graph; bounds for all layers "
        "together. Below 0 the context has brought neighbours together.",
        "Park et al. 2025 (In-Context Learning of Representations, arXiv 2501.00070)",
    )
)
