"""Computes nn.MultiheadAttention by plain operators while it is exported.

Measured with torch 2.13: both exporters write the example's number of time steps into the reshapes of torch's
own forward().
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Attention = nn.MultiheadAttention


@contextmanager
def plain_attention(module: nn.Module) -> Iterator[None]:
    """Replace forward() of the attention layers that are computed here, while the context lasts."""
    layers = [one for one in module.modules() if type(one) is Attention and _is_usual(one)]
    for one in layers:
        one.__dict__["forward"] = _forward_of(one)
    try:
        yield
    finally:
        for one in layers:
            one.__dict__.pop("forward", None)


def _is_usual(layer: Attention) -> bool:
    """Return whether query, key and value have one width, and nothing is appended to them."""
    has_more = layer.bias_k is not None or layer.bias_v is not None or layer.add_zero_attn
    # The weights of three widths lie apart, and this one is then None, which torch's types do not say.
    has_one_width = isinstance(layer.in_proj_weight, Tensor)
    return has_one_width and not has_more and "forward" not in vars(layer)


def _forward_of(layer: Attention) -> Any:
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if query.dim() != 3 or (attn_mask is not None and attn_mask.dim() != 2):
            masks = (key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
            return Attention.forward(layer, query, key, value, *masks)
        if not layer.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        scores = _scores(layer, query, key)
        if attn_mask is not None:
            scores = scores + _additive(attn_mask, scores)
        if key_padding_mask is not None:
            scores = scores + _additive(key_padding_mask, scores)[:, None, None, :]
        weights = scores.softmax(-1)
        rows = (weights @ _heads(layer, value, 2)).transpose(1, 2).flatten(2)
        answer = layer.out_proj(rows if layer.batch_first else rows.transpose(0, 1))
        if not need_weights:
            return answer, None
        return answer, weights.mean(1) if average_attn_weights else weights

    return forward


def _scores(layer: Attention, query: Tensor, key: Tensor) -> Tensor:
    """Return (B, heads, T, S) of queries (B, T, E) and keys (B, S, E)."""
    return _heads(layer, query, 0) @ _heads(layer, key, 1).transpose(2, 3) / math.sqrt(layer.head_dim)


def _heads(layer: Attention, rows: Tensor, part: int) -> Tensor:
    """Return the projection of rows (B, T, E) by the first, second or third part: (B, heads, T, width)."""
    cut = slice(part * layer.embed_dim, (part + 1) * layer.embed_dim)
    bias: Tensor | None = getattr(layer, "in_proj_bias", None)
    projected = functional.linear(rows, layer.in_proj_weight[cut], None if bias is None else bias[cut])
    return projected.reshape(rows.shape[0], -1, layer.num_heads, layer.head_dim).transpose(1, 2)


def _additive(mask: Tensor, scores: Tensor) -> Tensor:
    """Return a mask as numbers that are added: a boolean one is true where nothing may be looked at."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, float("-inf"))
