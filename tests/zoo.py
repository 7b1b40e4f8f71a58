"""Tiny random-weight models of many architectures, for every test folder.

`NAMES` lists them; `hf_model(name)` gives the bare transformers model, `build(name)` the wrapped
`probes` Model with a word-level tokenizer made in memory. Weights are larger than an untrained
model's, so that a site that is wrong shows up far above rounding.

The table holds only *sizes*: what a field is called differs between configurations, and a misspelt
field silently gives a full-size model, so `hf_model` refuses more than 300,000 parameters.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

VOCABULARY = 96
D = 32
MAX_PARAMETERS = 300_000
_WORDS = (
    "the a cat dog bird fish tree house river stone sun moon red blue green old new big small fast "
    "slow runs sleeps sings sees likes finds eats near under over and or not is was will with from "
    "to in on at one two three four five six seven eight nine ten day night city road king queen "
    "gold iron wood glass north south east west first last good bad true false"
)
WORDS = _WORDS.split()
SPECIALS = ("[CLS]", "[PAD]", "[SEP]", "[MASK]", "[UNK]", "<s>", "</s>")  # MPNet insists on pad = 1

_WIDE = {"hidden_size": D, "num_attention_heads": 4, "vocab_size": VOCABULARY}
_ENCODER = {
    **_WIDE,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
_LLAMA = {**_ENCODER, "num_key_value_heads": 2, "bos_token_id": 5, "eos_token_id": 6}
_GEMMA = {**_LLAMA, "head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 16}
_GPT2 = {
    "n_embd": D,
    "n_head": 4,
    "n_layer": 3,
    "n_positions": 64,
    "vocab_size": VOCABULARY,
    "bos_token_id": 5,
    "eos_token_id": 6,
}

# name -> (configuration class, head class, fields)
SPECS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT2),
    "gpt-neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _ENCODER),
    "gpt-neox-serial": (
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        {**_ENCODER, "use_parallel_residual": False},
    ),
    "gptj": ("GPTJConfig", "GPTJForCausalLM", {**_GPT2, "rotary_dim": 4}),
    "opt": (
        "OPTConfig",
        "OPTForCausalLM",
        {
            **_WIDE,
            "num_hidden_layers": 3,
            "ffn_dim": 48,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": D,
            "pad_token_id": 1,
        },
    ),
    "opt-post-norm": (
        "OPTConfig",
        "OPTForCausalLM",
        {
            **_WIDE,
            "num_hidden_layers": 3,
            "ffn_dim": 48,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 16,
            "pad_token_id": 1,
            "do_layer_norm_before": False,
        },
    ),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _LLAMA),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**_LLAMA, "sliding_window": 16}),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _LLAMA),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_LLAMA, "head_dim": 12}),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", _GEMMA),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", _GEMMA),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _LLAMA),
    "mixtral": (
        "MixtralConfig",
        "MixtralForCausalLM",
        {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "falcon": (
        "FalconConfig",
        "FalconForCausalLM",
        {**_WIDE, "num_hidden_layers": 3, "bos_token_id": 5, "eos_token_id": 6},
    ),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", _LLAMA),
    "cohere": ("CohereConfig", "CohereForCausalLM", _LLAMA),
    "stablelm": ("StableLmConfig", "StableLmForCausalLM", _LLAMA),
    "granite": (
        "GraniteConfig",
        "GraniteForCausalLM",
        {**_LLAMA, "residual_multiplier": 0.5, "embedding_multiplier": 3.0},
    ),
    "bert": ("BertConfig", "BertModel", _ENCODER),
    "roberta": ("RobertaConfig", "RobertaModel", _ENCODER),
    "xlm-roberta": ("XLMRobertaConfig", "XLMRobertaForMaskedLM", _ENCODER),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertModel",
        {
            "dim": D,
            "n_heads": 4,
            "n_layers": 3,
            "hidden_dim": 48,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
            "pad_token_id": 1,
        },
    ),
    "mpnet": ("MPNetConfig", "MPNetModel", _ENCODER),
    "electra": ("ElectraConfig", "ElectraModel", {**_ENCODER, "embedding_size": 16}),
    "deberta-v2": (
        "DebertaV2Config",
        "DebertaV2Model",
        {
            **_ENCODER,
            "relative_attention": True,
            "position_buckets": 8,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "type_vocab_size": 0,
        },
    ),
    "modernbert": (
        "ModernBertConfig",
        "ModernBertModel",
        {
            **_ENCODER,
            "local_attention": 16,
            "cls_token_id": 0,
            "sep_token_id": 2,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
    ),
    "t5-encoder": (
        "T5Config",
        "T5EncoderModel",
        {
            "d_model": D,
            "d_kv": 12,
            "d_ff": 48,
            "num_layers": 3,
            "num_heads": 4,
            "vocab_size": VOCABULARY,
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "t5": (
        "T5Config",
        "T5ForConditionalGeneration",
        {
            "d_model": D,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 3,
            "num_heads": 4,
            "vocab_size": VOCABULARY,
            "feed_forward_proj": "gated-gelu",
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "vit": (
        "ViTConfig",
        "ViTModel",
        {
            "hidden_size": D,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "intermediate_size": 48,
            "image_size": 12,
            "patch_size": 4,
        },
    ),
    "mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {
            "hidden_size": D,
            "num_hidden_layers": 3,
            "vocab_size": VOCABULARY,
            "state_size": 4,
            "pad_token_id": 1,
            "bos_token_id": 5,
            "eos_token_id": 6,
        },
    ),
}

NAMES: tuple[str, ...] = tuple(SPECS)
VISION = ("vit",)
WITHOUT_HEADS = ("mamba",)
TEXT_NAMES: tuple[str, ...] = tuple(name for name in NAMES if name not in VISION)
# The architectures that must work; the others came for nothing.
_REQUIRED = (
    "gpt2 gpt-neox opt llama mistral qwen2 qwen3 gemma2 gemma3 phi3 mixtral bert roberta "
    "distilbert mpnet electra modernbert t5-encoder vit mamba"
)
REQUIRED: tuple[str, ...] = tuple(_REQUIRED.split())


def names() -> tuple[str, ...]:
    return NAMES


def hf_model(name: str, seed: int = 0) -> transformers.PreTrainedModel:
    """The bare random-weight model in eval mode; the same weights for the same seed."""
    config_class, model_class, fields = SPECS[name]
    config = getattr(transformers, config_class)(**fields)
    for field in fields:
        assert field in config.to_dict(), f"{config_class} has no field {field}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # some initial values stay, such as those of state-space models
        model = getattr(transformers, model_class)(config)
    size = sum(parameter.numel() for parameter in model.parameters())
    assert size <= MAX_PARAMETERS, f"{name} has {size:,} parameters: a field name is wrong"
    _randomise(model, seed)
    return model.eval()


def _randomise(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "A_log" in key or key.endswith((".D", "dt_proj.bias")):
            continue  # a state-space model decays only with its own initial values
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:  # norms and biases: near what they were, but not trivial
            parameter.data.add_(0.1 * noise)
        else:
            scale = 0.5 if parameter.shape[0] == VOCABULARY else parameter.shape[-1] ** -0.5
            parameter.data.copy_(scale * noise)


def tokenizer(kind: str = "encoder") -> PreTrainedTokenizerFast:
    """Word-level, 96 entries. Encoders get [CLS] … [SEP]; decoders get no special tokens."""
    vocabulary = {word: index for index, word in enumerate((*SPECIALS, *WORDS))}
    assert len(vocabulary) <= VOCABULARY
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    if kind == "encoder":
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=64,
    )


def build(name: str, seed: int = 0) -> Any:
    """The wrapped model, structure found and checked; vision models have no tokenizer."""
    from probes.models import wrap_model

    model = hf_model(name, seed)
    if name in VISION:
        return wrap_model(model, name=f"tiny-{name}")
    decoder = "CausalLM" in type(model).__name__ or "LMHead" in type(model).__name__
    words = tokenizer("decoder" if decoder else "encoder")
    return wrap_model(model, words, name=f"tiny-{name}")


def texts(n: int, seed: int = 0, longest: int = 12) -> list[str]:
    """n texts of 1 to `longest` known words."""
    generator = torch.Generator().manual_seed(seed)
    out: list[str] = []
    for _ in range(n):
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        picks = torch.randint(0, len(WORDS), (length,), generator=generator)
        out.append(" ".join(WORDS[int(i)] for i in picks))
    return out
