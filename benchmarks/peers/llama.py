"""One random checkpoint in two forms: Hugging Face's Llama for the peers, and gatort's bundle.

A Gato block becomes a Llama block with RMSNorm for LayerNorm and SiLU for GELU. Export, graph and
engine are otherwise those that the robot runs. Letters: D width, H heads, h head size, F
feed-forward width.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import silu
from work import ACTION_TOKENS, PREFILLS, PROMPTS, VOCABULARY, WINDOW_TOKENS, Size, Work

from gatort.export.bundle_writer import write_bundle
from gatort.policies.model import FeedForward, Gato
from gatort.runtime.bundle import TrainingRecord
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, Actuator, ModelDims, ObservationKey, PolicySpec

NORM_EPSILON = 1e-5
EMBEDDING_STD = 0.05
"""Standard deviation of the embeddings, small beside the blocks' outputs.

Otherwise the head, which is tied to the embeddings, would only repeat the input."""
ATTENTION_GAIN = 1.5
"""Gain of queries and of keys.

Otherwise a position sees the mean of its window, and a wrong mask would change no token."""
END_TOKEN = 0
"""Token that ends a text, which onnxruntime-genai requires.

Its embedding is zero: its logit is never the largest."""
SEED = 0


class GatedBySilu(FeedForward):
    """SwiGLU (Shazeer, arXiv 2002.05202) over the weights of GEGLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, D) for (…, D)."""
        gate, value = self.up(x).chunk(2, dim=-1)  # (…, F) each
        mapped: Tensor = self.down(silu(gate) * value)
        return mapped


def frame_spec(prefill: int) -> PolicySpec:
    """Return a frame without images, with this prefill length, in the largest window."""
    observed = prefill - 2
    key = ObservationKey(
        name="state", shape=(observed,), dtype="float32", unit="1", encoding="mu_law"
    )
    actuators = [
        Actuator(name=f"joint_{i}", unit="N·m", low=-1, high=1, safe=0)
        for i in range(ACTION_TOKENS)
    ]
    return PolicySpec(
        observations=(key,),
        actuators=tuple(actuators),
        control_hz=20,
        action_delay_ms=25,
        window_frames=WINDOW_TOKENS // (prefill + ACTION_TOKENS - 1),
    )


def random_llama(size: Size, prefill: int) -> Gato:
    """Return a Gato with Llama's norms and gate, and weights that keep their input's variance."""
    dims = ModelDims(
        layers=size.layers,
        heads=size.heads,
        head_size=size.head_size,
        width=size.width,
        ff_half_width=size.ff_width,
        first_token_id=FIRST_CONTINUOUS_ID,
        local_positions=max(PREFILLS) + ACTION_TOKENS - 1,
    )
    model = Gato(frame_spec(prefill), dims)
    for layer in model.layers:
        layer.norm_1, layer.norm_2 = _norm(size), _norm(size)
        layer.feed_forward = GatedBySilu(dims)
    model.norm = _norm(size)
    _draw_weights(model)
    return model.eval()


def _norm(size: Size) -> nn.RMSNorm:
    return nn.RMSNorm(size.width, eps=NORM_EPSILON)


def _draw_weights(model: Gato) -> None:
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(std=module.in_features**-0.5, generator=generator)
        for layer in model.layers:
            query_and_keys = 2 * model.dims.heads * model.dims.head_size
            layer.attention.qkv.weight[:query_and_keys] *= ATTENTION_GAIN
        model.tokens.weight.normal_(std=EMBEDDING_STD, generator=generator)
        model.tokens.weight[END_TOKEN] = 0.0
        model.local.weight.zero_()


def as_hugging_face(model: Gato) -> dict[str, Tensor]:
    """Return the weights under Llama's names.

    Fused matrices are split, and rotary pairs become halves of a head.
    """
    dims = model.dims
    weights = {
        "model.embed_tokens.weight": model.tokens.weight[:VOCABULARY],
        "model.norm.weight": model.norm.weight,
    }
    for index, layer in enumerate(model.layers):
        query, keys, values = layer.attention.qkv.weight.chunk(3)
        gate, up = layer.feed_forward.up.weight.chunk(2)
        named = {
            "input_layernorm": layer.norm_1.weight,
            "self_attn.q_proj": _halves(query, dims.heads),
            "self_attn.k_proj": _halves(keys, dims.heads),
            "self_attn.v_proj": values,
            "self_attn.o_proj": layer.attention.out.weight,
            "post_attention_layernorm": layer.norm_2.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": layer.feed_forward.down.weight,
        }
        weights |= {f"model.layers.{index}.{name}.weight": weight for name, weight in named.items()}
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _halves(weight: Tensor, heads: int) -> Tensor:
    """Return rows (H·h, D) in Llama's order.

    gatort rotates neighbouring pairs, Llama the first and second half of a head.
    """
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def hugging_face_config(size: Size) -> dict[str, object]:
    """Return the content of `config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": size.width,
        "intermediate_size": size.ff_width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "head_dim": size.head_size,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": WINDOW_TOKENS,
        "rms_norm_eps": NORM_EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": END_TOKEN,
        "eos_token_id": END_TOKEN,
    }


def write_checkpoints(size: Size, folder: Path) -> None:
    """Write the checkpoint in both forms, a bundle for each frame, and the work for each window."""
    llama = folder / "llama"
    llama.mkdir(parents=True)
    (llama / "config.json").write_text(json.dumps(hugging_face_config(size), indent=2))

    record = TrainingRecord(
        recipe="random weights, to be timed", demonstrations="none", parameters=0, steps=0
    )
    for prefill in PREFILLS:
        model = random_llama(size, prefill)
        write_bundle(folder / f"bundle-{prefill}-fp32", f"llama-{prefill}", model, record)
        _draw_work(prefill, model.spec.window_tokens).save(folder)
    save_file(as_hugging_face(model), llama / "model.safetensors", metadata={"format": "pt"})


def _draw_work(prefill: int, window: int) -> Work:
    generator = torch.Generator().manual_seed(SEED)
    before = window - (prefill + ACTION_TOKENS - 1)
    history = torch.randint(VOCABULARY, (before,), generator=generator)
    prompts = torch.randint(VOCABULARY, (PROMPTS, prefill), generator=generator)
    return Work(prefill, history.tolist(), prompts.tolist())
