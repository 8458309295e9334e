"""What turns features into one logit a tag: a linear layer, or an ML-Decoder for very many tags."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Linear", "MLDecoder"]


class Linear(nn.Linear):
    """One linear layer on the pooled features."""

    reads_map = False

    def __init__(self, features: int, tags: int) -> None:
        super().__init__(features, tags)
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)


class MLDecoder(nn.Module):
    """Queries look at the feature map, each answers for some tags (Ridnik et al. 2021, "ML-Decoder").

    One decoder layer without self-attention; the queries are fixed, a layer of the group turns each answer into
    `ceil(tags / groups)` logits. Its cost grows with the groups, not with the tags: `width · tags` weights, as a linear
    head on `width` features has, and `groups` queries of attention.

    Attributes:
        weight, bias: of the groups' layers, [groups, width, tags of a group] and [tags].
    """

    reads_map = True

    def __init__(self, features: int, tags: int, *, width: int, groups: int, heads: int = 8) -> None:
        super().__init__()
        groups = min(groups, tags)
        each = -(-tags // groups)
        self.tags, self.groups = tags, groups
        self.embed = nn.Linear(features, width)
        self.register_buffer("queries", torch.randn(groups, width, generator=torch.Generator().manual_seed(0)))
        self.attention = nn.MultiheadAttention(width, heads if width % heads == 0 else 1, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.weight = nn.Parameter(torch.empty(groups, width, each))
        self.bias = nn.Parameter(torch.zeros(tags))
        nn.init.normal_(self.weight, std=0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        """The feature map as tokens [n, places, features] → logits [n, tags]."""
        seen = self.embed(tokens).relu()
        asked = self.norms[0](self.queries).expand(tokens.shape[0], -1, -1)
        answer = self.norms[1](asked + self.attention(asked, seen, seen, need_weights=False)[0])
        answer = self.norms[2](answer + self.inner(answer))
        logits = torch.einsum("ngw,gwt->ngt", answer, self.weight)
        return logits.flatten(1)[:, : self.tags] + self.bias
