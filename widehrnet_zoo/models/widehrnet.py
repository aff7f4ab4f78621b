"""WideHRNet: a lightweight high-resolution network for 2D human pose estimation.

Paper: `WideHRNet: An Efficient Model for Human Pose Estimation Using Wide Channels in Lightweight High-Resolution
Network`, Samkari, Arif, AlGhamdi and Al Ghamdi, IEEE Access 2024. The architecture follows the authors' public network
file; this is an independent implementation whose outputs are tested against the official ones.
"""

import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn as nn
from timm.layers import LayerType, calculate_drop_path_rates, create_classifier, get_device_dtype
from timm.models import build_model_with_cfg, register_model
from timm.models._builder import resolve_pretrained_cfg
from timm.models._features import feature_take_indices
from torch import Tensor

from ..errors import UserError
from ..pose.skeletons import Skeleton, skeleton_of
from .blocks import SequentialList, TopDownNeck, Transition, WideHRModule, WideStem, checkpoint_module, init_weights
from .configs import default_cfgs  # noqa: F401 (timm's register_model reads it here)
from .hub_methods import HubMethods
from .loading import check_source, checkpoint_filter_fn, with_shipped_settings

__all__ = ['WideHRNet']


class WideHRNet(HubMethods, nn.Module):
    """WideHRNet for keypoint heatmaps, classification or features.

    Args:
        num_classes: Number of keypoints (heatmaps) or of classes; 0 leaves the features without a head.
        in_chans: Number of input channels.
        global_pool: `''` gives heatmaps at stride 4, one per keypoint; `'avg'` (or another pooling that
            `timm.layers.create_classifier` knows) gives pooled logits.
        stem_width: Channels of the stem, even.
        channels: Channels per branch, highest resolution first, each even. Stage `s` has `s + 2` branches.
        num_modules: Multi-resolution modules per stage, one stage fewer than branches.
        num_blocks: Wide inverted residuals per branch and module.
        expansion: Channel expansion inside a block.
        attn_layer: Attention on the expanded channels: `None`, `'se'` as published, or any other name that
            `timm.layers.create_attn` knows (`'eca'`, `'cbam'`, ...).
        norm_layer: Normalisation layer or its timm name.
        act_layer: Activation layer or its timm name.
        drop_rate: Dropout before the head.
        drop_path_rate: Stochastic depth of the last module, rising linearly from 0.
        device: Device of the parameters.
        dtype: Type of the parameters.

    Raises:
        UserError: If widths are odd or the numbers of branches and stages do not fit.
    """

    # TorchScript knows no class of ours
    __jit_unused_properties__: ClassVar[list[str]] = ['skeleton']

    def __init__(
        self,
        num_classes: int = 17,
        in_chans: int = 3,
        global_pool: str = '',
        stem_width: int = 32,
        channels: tuple[int, ...] = (40, 80, 160, 320),
        num_modules: tuple[int, ...] = (2, 4, 2),
        num_blocks: int = 2,
        expansion: float = 4.0,
        attn_layer: LayerType | None = None,
        norm_layer: LayerType = nn.BatchNorm2d,
        act_layer: LayerType = nn.ReLU,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ):
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        kwargs: dict[str, Any] = dict(norm_layer=norm_layer, act_layer=act_layer, **dd)
        super().__init__()
        channels = tuple(channels)
        if any(c % 2 for c in (stem_width, *channels)):
            raise UserError(
                f'Blocks split channels in halves: stem_width={stem_width} and channels={channels} must all be even.'
            )
        if len(num_modules) != len(channels) - 1:
            raise UserError(
                f'{len(channels)} branches need {len(channels) - 1} stages, '
                f'but num_modules={tuple(num_modules)} has {len(num_modules)}.'
            )
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.grad_checkpointing = False
        self.num_features = self.head_hidden_size = channels[0]
        self.num_branches = len(channels)
        # one module makes all branches, so these are nodes of the graph that torch.fx traces, not modules to hook
        last_act = f'stages.{len(num_modules) - 1}.{num_modules[-1] - 1}.fuse.act'
        self.feature_info = [
            {'num_chs': c, 'reduction': 4 * 2**i, 'module': f'{last_act}_{i}' if i else last_act}
            for i, c in enumerate(channels)
        ]

        self.stem = WideStem(in_chans, stem_width, **kwargs)
        drop_paths: Iterator[Any] = iter(calculate_drop_path_rates(drop_path_rate, sum(num_modules)))
        self.transitions = nn.ModuleList()
        self.stages: Any = nn.ModuleList()
        prev_chs: tuple[int, ...] = (stem_width,)
        for stage_idx in range(len(num_modules)):
            stage_chs = channels[: stage_idx + 2]
            self.transitions.append(Transition(prev_chs, stage_chs, **kwargs))
            self.stages.append(
                SequentialList(
                    *[
                        WideHRModule(stage_chs, num_blocks, expansion, attn_layer, drop_path=next(drop_paths), **kwargs)
                        for _ in range(num_modules[stage_idx])
                    ]
                )
            )
            prev_chs = stage_chs
        self.neck: nn.Module = TopDownNeck(channels, **kwargs)
        self._make_head(global_pool, **dd)

        self.init_weights()

    @property
    def skeleton(self) -> Skeleton:
        """What the keypoints are: what was set, or what the config says, also without a head and without weights."""
        own = self.__dict__.get('_skeleton')
        if own is not None and self.num_classes in (0, own.num_keypoints):
            return own
        cfg = getattr(self, 'pretrained_cfg', None)
        return skeleton_of(SimpleNamespace(pretrained_cfg=cfg, num_classes=self.num_classes or None))

    @skeleton.setter
    def skeleton(self, skeleton: Skeleton) -> None:
        self.__dict__['_skeleton'] = skeleton

    def _make_head(self, global_pool: str, **dd: Any) -> None:
        self.global_pool, self.head_drop, self.classifier = create_classifier(
            self.num_features,
            self.num_classes,
            pool_type=global_pool,
            use_conv=not global_pool,
            drop_rate=self.drop_rate,
            **dd,
        )
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()

    @torch.jit.ignore
    def init_weights(self) -> None:
        """Initialise as the authors do: convolutions normal with std 0.001, norms as PyTorch does."""
        self.apply(init_weights)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that order the parameters from the input to the output, for layer-wise learning rates."""
        return {
            'stem': r'^stem',
            'blocks': r'^(?:stages|transitions)\.(\d+)'
            if coarse
            else [
                (r'^stages\.(\d+)\.(\d+)', None),
                (r'^transitions\.(\d+)', (-1,)),
                (r'^neck', (99999,)),
            ],
        }

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the activations of each multi-resolution module in the backward pass."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The head: a 1x1 convolution for heatmaps, a linear layer for pooled logits."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head.

        Args:
            num_classes: Number of keypoints or classes; 0 removes the head.
            global_pool: New pooling (`''` for heatmaps); the present one if `None`.
        """
        self.num_classes = num_classes
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        self._make_head(pool_type, **get_device_dtype(self))
        self.classifier.apply(init_weights)
        for m in (self.global_pool, self.head_drop, self.classifier):
            m.train(self.training)

    def forward_branches(self, x: Tensor) -> list[Tensor]:
        """Images (B, in_chans, H, W) of any size to the fused branches, strides 4, 8, 16, 32, rounded up."""
        branches = [self.stem(x)]
        for transition, stage in zip(self.transitions, self.stages, strict=False):
            branches = transition(branches)
            if self.grad_checkpointing and not torch.jit.is_scripting():
                for module in stage:
                    branches = checkpoint_module(module, branches)
            else:
                branches = stage(branches)
        return branches

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Features together with the branches of the last stage.

        Args:
            x: Images (B, in_chans, H, W).
            indices: The last n branches if int, all if None, else the selected ones; 0 has stride 4, 3 stride 32.
            norm: Unused, the branches have no final norm.
            stop_early: Unused, all branches come out of the last module together.
            output_fmt: `'NCHW'`, the only format there is.
            intermediates_only: Return only the branches.

        Returns:
            The branches, or (features, branches).
        """
        assert output_fmt == 'NCHW', 'Output format must be NCHW.'
        take_indices, _ = feature_take_indices(self.num_branches, indices)
        branches = self.forward_branches(x)
        intermediates = [branches[i] for i in take_indices]
        if intermediates_only:
            return intermediates
        return self.neck(branches), intermediates

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop what the chosen branches do not need; they come out together, so that is only neck and head.

        Args:
            indices: Branches to keep.
            prune_norm: Unused, there is no final norm.
            prune_head: Drop the neck and the head.

        Returns:
            The absolute indices of the branches.
        """
        take_indices, _ = feature_take_indices(self.num_branches, indices)
        if prune_head:
            self.neck = nn.Identity()
            self.reset_classifier(0, '')
            self.head_drop = nn.Identity()
        return take_indices

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to features (B, num_features, H/4, W/4)."""
        return self.neck(self.forward_branches(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to heatmaps (B, num_classes, H/4, W/4), or pooled logits (B, num_classes)."""
        x = self.head_drop(self.global_pool(x))
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to heatmaps, logits or features, see `global_pool` and `num_classes`."""
        return self.forward_head(self.forward_features(x))


def _create_widehrnet(variant: str, pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    if 'img_size' in kwargs:
        raise UserError(
            'img_size is not needed: the network takes images of any size. For a PoseEstimator give it '
            'size=(height, width), for a saved model save_pretrained.'
        )
    build = functools.partial(
        build_model_with_cfg,
        WideHRNet,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={'out_indices': (0, 1, 2, 3), 'feature_cls': 'getter'},
    )
    if not pretrained:
        return with_shipped_settings(build(**kwargs))

    from ..weights.download import prepare_source, single_source
    from ..weights.errors import hub_errors

    overlay = single_source(kwargs.pop('pretrained_cfg_overlay', None))
    cfg = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg'), overlay)
    check_source(variant, cfg)
    with hub_errors(f'local-dir:{cfg.file}' if cfg.file else f'hf-hub:{cfg.hf_hub_id}' if cfg.hf_hub_id else variant):
        overlay.update(prepare_source(cfg, overlay.get('hf_hub_filename'), kwargs.get('cache_dir')))
        return with_shipped_settings(build(pretrained_cfg_overlay=overlay, **kwargs))


@register_model
def widehrnet_10(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-10, our light variant for phones: 0.92 M parameters, 0.33 G multiply-adds at 256x256."""
    model_args = {'channels': (32, 64, 128, 256), 'num_modules': (1, 2, 1)}
    return _create_widehrnet('widehrnet_10', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_10_attn(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-10 with squeeze-excitation: 1.47 M parameters, 0.34 G multiply-adds at 256x256."""
    model_args = {'channels': (32, 64, 128, 256), 'num_modules': (1, 2, 1), 'attn_layer': 'se'}
    return _create_widehrnet('widehrnet_10_attn', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_18_x2(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-18, expansion 2."""
    model_args = {'expansion': 2.0}
    return _create_widehrnet('widehrnet_18_x2', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_18_x2_attn(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-18, expansion 2, with squeeze-excitation."""
    model_args = {'expansion': 2.0, 'attn_layer': 'se'}
    return _create_widehrnet('widehrnet_18_x2_attn', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_18(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-18."""
    return _create_widehrnet('widehrnet_18', pretrained, **kwargs)


@register_model
def widehrnet_18_attn(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-18, with squeeze-excitation."""
    model_args = {'attn_layer': 'se'}
    return _create_widehrnet('widehrnet_18_attn', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_18_x6(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-18, expansion 6."""
    model_args = {'expansion': 6.0}
    return _create_widehrnet('widehrnet_18_x6', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_18_x6_attn(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-18, expansion 6, with squeeze-excitation."""
    model_args = {'expansion': 6.0, 'attn_layer': 'se'}
    return _create_widehrnet('widehrnet_18_x6_attn', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_30_x2(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-30, expansion 2."""
    model_args = {'num_modules': (3, 8, 3), 'expansion': 2.0}
    return _create_widehrnet('widehrnet_30_x2', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_30_x2_attn(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-30, expansion 2, with squeeze-excitation."""
    model_args = {'num_modules': (3, 8, 3), 'expansion': 2.0, 'attn_layer': 'se'}
    return _create_widehrnet('widehrnet_30_x2_attn', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_30(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-30."""
    model_args = {'num_modules': (3, 8, 3)}
    return _create_widehrnet('widehrnet_30', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_30_attn(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-30, with squeeze-excitation."""
    model_args = {'num_modules': (3, 8, 3), 'attn_layer': 'se'}
    return _create_widehrnet('widehrnet_30_attn', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_30_x6(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-30, expansion 6."""
    model_args = {'num_modules': (3, 8, 3), 'expansion': 6.0}
    return _create_widehrnet('widehrnet_30_x6', pretrained, **dict(model_args, **kwargs))


@register_model
def widehrnet_30_x6_attn(pretrained: bool = False, **kwargs: Any) -> WideHRNet:
    """WideHRNet-30, expansion 6, with squeeze-excitation."""
    model_args = {'num_modules': (3, 8, 3), 'expansion': 6.0, 'attn_layer': 'se'}
    return _create_widehrnet('widehrnet_30_x6_attn', pretrained, **dict(model_args, **kwargs))
