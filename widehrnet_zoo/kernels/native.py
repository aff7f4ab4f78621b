"""The deployed network on this package's own CPU kernels."""

from typing import Any

import torch
from torch import Tensor, nn

from ..deployment.network import DeployedWideHRNet, describe_as
from ..errors import UserError
from .library import Network, choose_variant, variants
from .program import Program
from .record import record


class KernelNetwork(nn.Module):
    """A network on the compiled kernels; made by `accelerate`.

    It can be pickled and copied: the kernels are then opened anew, and may be others on another processor.

    Attributes:
        program: What the kernels run.
        precision: `'f32'`, `'bf16'` or `'int8'`.
        num_classes: Number of heatmaps.
        in_chans: Number of input channels.
        pretrained_cfg: Of the trained model, as are `skeleton`, and `padding` and `score_map` if it has them.

    Args:
        program: From `record`.
        precision: `'f32'`, `'bf16'` or `'int8'`.
        variant: Name of the kernels; by default the best for this processor.

    Raises:
        UserError: If there are no such kernels here.
    """

    pretrained_cfg: Any = None

    def __init__(self, program: Program, precision: str = 'f32', variant: str | None = None):
        super().__init__()
        self.program = program
        self.precision = precision
        self.num_classes = program.outputs
        self.in_chans = program.channels
        self._wanted = variant
        self._network: Network | None = program.open(choose_variant(precision, variant))
        self.eval()

    @property
    def variant(self) -> str:
        """Name of the kernels that run."""
        return self._opened().variant

    def _opened(self) -> Network:
        if self._network is None:
            wanted = self._wanted if self._wanted in variants() else None
            self._network = self.program.open(choose_variant(self.precision, wanted))
        return self._network

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_network': None}

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W), H and W multiples of 32, to heatmaps (B, K, H/4, W/4), on `torch.get_num_threads()`.

        Raises:
            UserError: If the size does not fit, or the images are not float32 on the CPU.
        """
        if x.device.type != 'cpu':
            raise UserError(f'The kernels take images on the CPU, not on {x.device}.')
        return torch.from_numpy(self._opened()(x.contiguous().numpy()))


def accelerate(deployed: DeployedWideHRNet, precision: str = 'f32', variant: str | None = None) -> KernelNetwork:
    """Run a deployed network on this package's own kernels for the CPU.

    Args:
        deployed: From `deploy()`, with heatmaps.
        precision: `'f32'`, equal within rounding; `'bf16'`: products of bfloat16 numbers with float32 sums, where the
            processor has AVX512-BF16; or `'int8'`: products of 8-bit integers, where it has AVX512-VNNI.
        variant: Name of the kernels, one of `widehrnet_zoo.kernels.library.variants()`; by default what the
            environment variable `WIDEHRNET_KERNELS` says, or else the best for this processor.

    Returns:
        The network; images (B, C, H, W) in float32, H and W multiples of 32, to heatmaps.

    Raises:
        UserError: If the package was installed without kernels, the processor has no such instructions, or the network
            has other attention than squeeze-excitation, no heatmaps, or is not in float32 on the CPU.
    """
    network = KernelNetwork(record(deployed), precision, variant)
    describe_as(network, deployed)
    return network
