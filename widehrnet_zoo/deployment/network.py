"""The deployed network: equal to the trained one, for inference only."""

import copy
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError
from ..models.opening import unwrap
from ..models.widehrnet import WideHRNet
from .folding import Affine, Layout, fold, fold_separable, paired_layout, reach
from .fusion import DownPath, Fusion
from .layers import Block, Gate, Gather, Pointwise, Separable


class Stem(nn.Module):
    """The stem as one chain: what passes one convolution of the second half goes through an identity beside it."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Affine, mix: Affine, dw: Affine, pw: Affine):
        super().__init__()
        self.register_buffer('weight', conv.weight.float().contiguous(memory_format=torch.channels_last))
        self.register_buffer('bias', conv.bias.float())
        self.mix = Pointwise(mix)
        self.separable = Separable(dw, pw, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to (B, H/4, W/4, C')."""
        x = x.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, self.weight, self.bias, stride=2, padding=1).relu_()
        # with one input channel PyTorch cannot tell channels last from first, and takes first
        return self.separable(self.mix(y.permute(0, 2, 3, 1).contiguous()).relu_())


class Stage(nn.Module):
    """One multi-resolution module: blocks on each branch, then the fusion."""

    def __init__(self, branches: list[list[nn.Module]], fusion: Fusion):
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(*blocks) for blocks in branches])
        self.fusion = fusion

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Branches to branches; the inputs are overwritten."""
        return self.fusion([branch(y) for branch, y in zip(self.branches, x, strict=True)])


class Transition(nn.Module):
    """New branches at the start of a stage."""

    def __init__(self, keep: list[nn.Module], new: Separable):
        super().__init__()
        self.keep = nn.ModuleList(keep)
        self.new = new

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Branches to branches, one more."""
        new = self.new(x[-1])
        return [keep(y) for keep, y in zip(self.keep, x, strict=True)] + [new]


class DeployedWideHRNet(nn.Module):
    """WideHRNet for inference; made by `deploy`.

    Attributes:
        num_classes: Number of keypoints or classes.
        in_chans: Number of input channels.
        pretrained_cfg: Of the trained model, as are `skeleton`, and `padding` and `score_map` if it has them.
    """

    pretrained_cfg: Any = None

    def __init__(
        self,
        stem: Stem,
        modules: list[nn.Module],
        neck: list[Separable],
        head: nn.Module,
        num_classes: int,
        in_chans: int,
    ):
        super().__init__()
        self.stem = stem
        self.body = nn.ModuleList(modules)
        self.neck = nn.ModuleList(neck)
        self.head = head
        self.num_classes = num_classes
        self.in_chans = in_chans

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to features (B, H/4, W/4, C)."""
        branches = [self.stem(x)]
        for module in self.body:
            branches = module(branches)
        y = branches[-1]
        for i, project in enumerate(self.neck):
            if i:
                branch = branches[-1 - i]
                up = F.interpolate(y.permute(0, 3, 1, 2), branch.shape[1:3], mode='bilinear', align_corners=True)
                y = branch.add_(up.permute(0, 2, 3, 1))
            y = project(y)
        return y

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to heatmaps (B, num_classes, H/4, W/4), or to pooled logits."""
        y = self.forward_features(x)
        if isinstance(self.head, Pointwise):
            return self.head(y).permute(0, 3, 1, 2).contiguous()
        return self.head(y.permute(0, 3, 1, 2))


class _Builder:
    """Walks a trained network with the layout and the scale of each branch in hand.

    `scale` is the number that the stored highest resolution must be multiplied with: the official sum doubles that
    branch in every fusion, and doubling the scale instead costs nothing (and is exact, a power of two).
    """

    def __init__(self, model: WideHRNet):
        # nn.Module's attributes are Tensor | Module to the type checker
        self.model: Any = model
        self.scale = 1.0
        self.layouts: list[Layout] = []

    def stem(self, stem: Any) -> Stem:
        a, b = stem.branch1, stem.branch2
        expand, sep = b.conv_pw, b.conv_sep
        conv = fold(stem.conv, 'stem.conv')
        half = conv.weight.shape[0] // 2
        opened = fold(expand, 'stem.branch2.conv_pw')
        wide = opened.weight.shape[0]
        mix = conv.bias.new_zeros(half + wide, 2 * half, 1, 1)
        # the first half is not negative after its ReLU, so an identity and another ReLU leave it as it is
        mix[:half, :half, 0, 0] = torch.eye(half)
        mix[half:, half:] = opened.weight
        dws = [fold(a.conv_dw, 'stem.branch1.conv_dw'), fold(sep.conv_dw, 'stem.branch2.conv_sep.conv_dw')]
        pws = [fold(a.conv_pw, 'stem.branch1.conv_pw'), fold(sep.conv_pw, 'stem.branch2.conv_sep.conv_pw')]
        layout = paired_layout(2 * half)
        self.layouts = [layout]
        pw = Affine(
            torch.block_diag(*[p.matrix for p in pws])[:, :, None, None],
            torch.cat([p.bias for p in pws]),
        )
        return Stem(
            conv,
            Affine(mix, torch.cat((torch.zeros_like(conv.bias[:half]), opened.bias))),
            Affine(torch.cat([d.weight for d in dws]), torch.cat([d.bias for d in dws])),
            pw.reorder(out=Layout.natural(2 * half).shuffled().position[layout.order]),
        )

    def transition(self, index: int) -> Transition:
        trained = self.model.transitions[index]
        what = f'transitions.{index}'
        keep: list[nn.Module] = []
        layouts = []
        for i, (layer, layout) in enumerate(zip(trained.keep, self.layouts, strict=True)):
            if isinstance(layer, nn.Identity):
                keep.append(nn.Identity())
            else:
                out = paired_layout(layer.conv_pw.conv.out_channels)
                keep.append(Separable(*fold_separable(layer, f'{what}.keep.{i}', layout, out)))
                layout = out
            layouts.append(layout)
        out = paired_layout(trained.new.conv_pw.conv.out_channels)
        new = Separable(*fold_separable(trained.new, f'{what}.new', self.layouts[-1], out), stride=2)
        self.layouts = [*layouts, out]
        return Transition(keep, new)

    def block(self, block: Any, what: str, branch: int) -> Block:
        layout = self.layouts[branch]
        half = len(layout.position) // 2
        scale = self.scale if branch == 0 else 1.0
        expand = fold(block.conv_pw, f'{what}.conv_pw').fed(scale)
        project = fold(block.conv_pwl, f'{what}.conv_pwl').scaled(1 / scale)
        places = layout.second_half()
        start = int(places[0])
        assert torch.equal(places, torch.arange(start, start + half)), 'a block must work on one run of channels'
        local = layout.order[places] - half
        expand, project = expand.reorder(into=local), project.reorder(out=local)
        self.layouts[branch] = layout.shuffled()
        attn: nn.Module | None = None
        if not isinstance(block.attn, nn.Identity):
            attn = Gate(block.attn) if Gate.fits(block.attn) else copy.deepcopy(block.attn).cpu().float()
        return Block(expand, fold(block.conv_dw, f'{what}.conv_dw'), project, attn, start, reach(block.conv_dw.bn))

    def branch(self, blocks: Any, what: str, index: int) -> list[nn.Module]:
        made: list[nn.Module] = []
        for k, block in enumerate(blocks):
            if k and k % 2 == 0:
                made.append(Gather(self._regather(index)))
            made.append(self.block(block, f'{what}.{k}', index))
        return made

    def _regather(self, branch: int) -> Tensor:
        layout = self.layouts[branch]
        self.layouts[branch] = target = paired_layout(len(layout.position))
        return layout.position[target.order]

    def fusion(self, fusion: Any, what: str, last: bool) -> Fusion:
        orders = [layout.order for layout in self.layouts]
        new_scale = 2 * self.scale
        num = len(orders)
        biases = [torch.zeros(len(order), dtype=torch.float64) for order in orders]
        down = []
        for i in range(1, num):
            for j in range(i):
                chain = list(fusion.paths[i][j])
                layouts = [self.layouts[j], *[Layout.natural(len(orders[j]))] * (i - j - 1), self.layouts[i]]
                folded = [
                    fold_separable(
                        layer,
                        f'{what}.paths.{i}.{j}.{k}',
                        layouts[k],
                        layouts[k + 1],
                        new_scale if j == 0 and k == 0 else 1.0,
                    )
                    for k, layer in enumerate(chain)
                ]
                steps = [Separable(dw, pw, stride=2) for dw, pw in folded[:-1]]
                dw, pw = folded[-1]
                pw = pw.scaled(2.0) if j == 0 else pw
                biases[i] += pw.bias
                down.append(DownPath(j, i, steps, dw, pw))
        up = []
        for j in range(1, num):
            parts = []
            for i in range(j):
                part = fold(fusion.paths[i][j], f'{what}.paths.{i}.{j}').reorder(orders[i], orders[j])
                if i == 0:
                    part = part.scaled(1 / new_scale)
                if i == j - 1:
                    part = Affine(part.weight, part.bias + biases[i])
                parts.append(part)
            up.append(Affine(torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])))
        self.scale = new_scale
        gather = [None if last else self._regather(i) for i in range(num)]
        return Fusion(tuple(map(len, orders)), up, down, biases[-1], gather)

    def stage(self, module: Any, what: str, last: bool) -> Stage:
        branches = [self.branch(blocks, f'{what}.branches.{i}', i) for i, blocks in enumerate(module.branches)]
        return Stage(branches, self.fusion(module.fuse, f'{what}.fuse', last))

    def neck(self) -> list[Separable]:
        projects = self.model.neck.projects
        made = []
        for i, project in enumerate(projects):
            into = self.layouts[-1 - i]
            above = len(projects) - 2 - i
            out = self.layouts[above] if above >= 0 else Layout.natural(len(into.position))
            dw, pw = fold_separable(project, f'neck.projects.{i}', into, out, self.scale if above < 0 else 1.0)
            made.append(Separable(dw, pw.scaled(1 / self.scale) if above == 0 else pw))
        return made

    def head(self) -> nn.Module:
        classifier = self.model.classifier
        if isinstance(classifier, nn.Conv2d):
            return Pointwise(Affine.of(classifier))
        return nn.Sequential(copy.deepcopy(self.model.global_pool), copy.deepcopy(classifier)).cpu().float()

    def build(self) -> DeployedWideHRNet:
        stem = self.stem(self.model.stem)
        modules: list[nn.Module] = []
        for s, stage in enumerate(self.model.stages):
            modules.append(self.transition(s))
            for m, module in enumerate(stage):
                last = s == len(self.model.stages) - 1 and m == len(stage) - 1
                modules.append(self.stage(module, f'stages.{s}.{m}', last))
        return DeployedWideHRNet(stem, modules, self.neck(), self.head(), self.model.num_classes, self.model.in_chans)


def deploy(model: nn.Module) -> DeployedWideHRNet:
    """Make an equal network for inference, several times faster on a CPU.

    Batch norms are folded, and no channel is split off, concatenated or shuffled in memory any more: each block works
    in place on one run of a branch's channels, and the weights know which channel lies where. `docs/deploy.md`
    explains it. The result is in float32 on the model's device, in evaluation mode; the model stays as it is.

    Args:
        model: A `WideHRNet`, with heatmaps, pooled logits or plain features.

    Returns:
        The deployed network; images (B, in_chans, H, W) to the model's own output, equal within rounding.

    Raises:
        UserError: If the model is not a WideHRNet, or has norms or activations that cannot be folded.
    """
    model = unwrap(model)
    if isinstance(model, DeployedWideHRNet):
        return model
    if not isinstance(model, WideHRNet):
        raise UserError(
            f'deploy() takes a WideHRNet, not {type(model).__name__}; a model made with features_only=True must be '
            'deployed before that.'
        )
    if not isinstance(model.neck, nn.Module) or isinstance(model.neck, nn.Identity):
        raise UserError('deploy() needs the whole network, and the neck of this one was pruned.')
    deployed = _Builder(model).build()
    describe_as(deployed, model)
    return deployed.to(next(model.parameters()).device).eval().requires_grad_(False)


def describe_as(network: nn.Module, model: nn.Module) -> None:
    """Give a network what is known of the model that it computes, in place: `PoseEstimator` goes by it."""
    for name in ('pretrained_cfg', 'skeleton', 'padding', 'score_map'):
        with suppress(UserError):  # of a backbone, whose keypoints nobody knows
            value = getattr(model, name, None)
            if value is not None:
                setattr(network, name, value)
