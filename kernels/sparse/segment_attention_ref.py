"""Reference of attention within segments. The contract is csrc/sparse/segment_attention.h."""

from __future__ import annotations

import torch


def _segments(query, key, bias, qptr, kptr, scale):
    """Of every segment the rows of its queries and of its keys, and scores [queries, keys, H]."""
    q, k, pairs = qptr.tolist(), kptr.tolist(), 0
    for q0, q1, k0, k1 in zip(q, q[1:], k, k[1:], strict=False):
        s = scale * torch.einsum("qhd,khd->qkh", query[q0:q1], key[k0:k1])
        if bias is not None:
            s = s + bias[pairs : pairs + s.shape[0] * s.shape[1]].reshape(s.shape)
            pairs += s.shape[0] * s.shape[1]
        yield slice(q0, q1), slice(k0, k1), s


def _weights(s, lse):
    return (s - torch.where(lse == float("-inf"), 0, lse)[:, None]).exp()


def _forward(query, key, value, bias, qptr, kptr, scale):
    outs, lses = [], []
    for _, keys, s in _segments(query, key, bias, qptr, kptr, scale):
        lse = torch.logsumexp(s, 1) if s.shape[1] else s.new_full((s.shape[0], s.shape[2]), float("-inf"))
        outs.append(torch.einsum("qkh,khd->qhd", _weights(s, lse), value[keys]))
        lses.append(lse)
    H, D = query.shape[1], value.shape[2]
    return torch.cat(outs or [value.new_zeros(0, H, D)]), torch.cat(lses or [value.new_zeros(0, H)])


def _wide(tensors, dtype):
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    return [None if t is None else t.detach().to(acc) for t in tensors]


def segment_attention(query, key, value, bias, qptr, kptr, offset, scale):
    out, lse = _forward(*_wide((query, key, value, bias), query.dtype), qptr, kptr, scale)
    return out.to(query.dtype), lse


def segment_attention_bwd(query, key, value, bias, out, lse, grad, qptr, kptr, offset, scale):
    dtype = query.dtype
    query, key, value, bias, out, grad = _wide((query, key, value, bias, out, grad), dtype)
    d_query, d_key, d_value = (torch.zeros_like(t) for t in (query, key, value))
    d_bias = [] if bias is not None else None
    delta = (out * grad).sum(2)
    for queries, keys, s in _segments(query, key, bias, qptr, kptr, scale):
        p = _weights(s, lse[queries])
        ds = p * (torch.einsum("qhd,khd->qkh", grad[queries], value[keys]) - delta[queries, None])
        d_query[queries] = scale * torch.einsum("qkh,khd->qhd", ds, key[keys])
        d_key[keys] = scale * torch.einsum("qkh,qhd->khd", ds, query[queries])
        d_value[keys] = torch.einsum("qkh,qhd->khd", p, grad[queries])
        if bias is not None:
            d_bias.append(ds.flatten(0, 1))
    d_bias = query.new_empty(0) if bias is None else torch.cat(d_bias or [bias])
    return tuple(t.to(dtype) for t in (d_query, d_key, d_value, d_bias))
