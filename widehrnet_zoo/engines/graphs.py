"""A network for CUDA: half-precision products, replayed as CUDA graphs at a few fixed batch sizes.

A forward pass is some 500 small kernels, and to launch them one by one takes longer than to run them. A CUDA graph
launches them all at once (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs); it is recorded for one shape,
so a batch is filled up to the next power of two.
"""

import copy
import logging
import threading
from typing import Any

import torch
from torch import Tensor, nn

_logger = logging.getLogger(__name__)

_WARM_UP = 3
"""Calls before a graph is recorded, in which libraries choose their algorithms."""

_MOST_GRAPHS = 12


class Replayed:
    """A module on CUDA, recorded at the first call with a shape and replayed at the next; elsewhere it is just called.

    Args:
        module: In evaluation mode; its weights must stay where they are.
    """

    def __init__(self, module: nn.Module):
        self.module = module
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Any] | None] = {}
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Any:
        """Images to what the module gives; on CUDA a copy, since the graph's own memory is written again."""
        if images.device.type != 'cuda':
            return self.module(images)
        with self._lock, torch.cuda.device(images.device):
            key = tuple(images.shape), images.dtype
            if key not in self._graphs:
                while len(self._graphs) >= _MOST_GRAPHS:
                    self._graphs.pop(next(iter(self._graphs)))
                self._graphs[key] = self._record(images)
            recorded = self._graphs[key]
            if recorded is None:
                return self.module(images)
            graph, given, found = recorded
            given.copy_(images)
            graph.replay()
            return found.clone()

    def _record(self, images: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Any] | None:
        given = images.clone(memory_format=torch.preserve_format)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                self.module(given)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                found = self.module(given)
        except RuntimeError as error:
            _logger.warning('No CUDA graph can be recorded, the kernels are launched one by one: %s', error)
            return None
        return graph, given, found


class GraphedNetwork(nn.Module):
    """A copy of a network in half precision and channels last, replayed as graphs.

    Half precision rounds to 11 bits, bfloat16 to 8; the largest activation of the weights that ship is a tenth of what
    half precision holds. `widehrnet bench --device cuda` states the error of both.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype = torch.float16):
        super().__init__()
        self.dtype = dtype
        self.network = copy.deepcopy(module).eval().to(dtype).to(memory_format=torch.channels_last)
        self._replayed = Replayed(self.network)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to float32 heatmaps (B, K, H/4, W/4)."""
        batch = len(images)
        filled = images.new_zeros((1 << (batch - 1).bit_length(), *images.shape[1:]), dtype=self.dtype)
        filled = filled.to(memory_format=torch.channels_last)
        filled[:batch] = images
        found: Tensor = self._replayed(filled)
        return found[:batch].float()
