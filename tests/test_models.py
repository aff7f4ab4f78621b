"""The network as a model of timm: every variant, every way to build, run, train, trace and load it."""

import copy

import pytest
import timm
import torch
from small_model import watch_layouts
from torch import nn

import widehrnet_zoo
from widehrnet_zoo import UserError
from widehrnet_zoo.models import WideHRNet, blocks, widehrnet


@pytest.fixture
def tiny(enliven):
    """A small network with all parts of the large ones."""

    def create(**kwargs):
        kwargs = {'channels': (8, 12, 16, 20), 'num_modules': (1, 2, 1), 'stem_width': 8, 'num_classes': 5, **kwargs}
        return enliven(WideHRNet(**{'num_blocks': 1, 'attn_layer': 'se', **kwargs})).eval()

    return create


def images(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


# ---- one head


@torch.inference_mode()
def test_a_name_of_the_hub_without_its_prefix_is_told():
    for create in (widehrnet_zoo.create_model, widehrnet_zoo.PoseEstimator):
        with pytest.raises(UserError, match="for one of the Hub write 'hf-hub:birds/small'"):
            create('birds/small')


def test_the_head_gives_heatmaps_logits_or_features(tiny):
    x = images(2, 3, 64, 96)
    assert tiny()(x).shape == (2, 5, 16, 24)
    features = tiny(num_classes=0)
    assert torch.equal(features(x), features.forward_features(x)) and features(x).shape == (2, 8, 16, 24)
    logits = tiny(global_pool='avg')
    pooled = logits.forward_features(x).mean((2, 3))
    assert logits(x).shape == (2, 5)
    torch.testing.assert_close(logits.forward_head(logits.forward_features(x), pre_logits=True), pooled)
    torch.testing.assert_close(
        logits(x), nn.functional.linear(pooled, logits.classifier.weight, logits.classifier.bias)
    )
    assert tiny(global_pool='catavgmax').head_hidden_size == 16


@torch.inference_mode()
def test_the_head_can_be_replaced(tiny):
    x, model = images(2, 3, 64, 64), tiny()
    features = model.forward_features(x)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7, 16, 16) and model.num_classes == 7
    assert isinstance(model.get_classifier(), nn.Conv2d) and model.classifier.weight.std() < 0.01
    model.reset_classifier(4, 'avg')
    assert model(x).shape == (2, 4)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    model.reset_classifier(0, '')
    assert torch.equal(model(x), features)


# ---- features


@torch.inference_mode()
@pytest.mark.parametrize('feature_cls', [None, 'getter', 'fx'])
def test_features_are_the_branches(feature_cls, enliven):
    x = images(1, 3, 64, 96)
    small = {'channels': (8, 16, 24, 32), 'num_blocks': 1}
    kwargs = {'feature_cls': feature_cls} if feature_cls else {}
    model = enliven(timm.create_model('widehrnet_10', features_only=True, **small, **kwargs)).eval()
    assert model.feature_info.channels() == [8, 16, 24, 32]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    whole = enliven(timm.create_model('widehrnet_10', **small)).eval()
    features, branches = whole.forward_intermediates(x)
    assert torch.equal(features, whole.forward_features(x))
    assert [b.shape[1:] for b in branches] == [(8, 16, 24), (16, 8, 12), (24, 4, 6), (32, 2, 3)]
    if feature_cls == 'fx':
        # a traced network with its head has taken other random weights
        whole.load_state_dict({**whole.state_dict(), **model.graph_module.state_dict()})
        branches = whole.forward_intermediates(x, intermediates_only=True)
    for branch, feature in zip(branches, model(x), strict=True):
        assert branch.std() > 0.01
        torch.testing.assert_close(feature, branch)


@torch.inference_mode()
def test_features_can_be_chosen(enliven):
    x = images(1, 3, 64, 64)
    branches = enliven(timm.create_model('widehrnet_10')).eval().forward_intermediates(x, intermediates_only=True)
    model = enliven(timm.create_model('widehrnet_10', features_only=True, out_indices=(1, 3))).eval()
    assert model.feature_info.channels() == [64, 256]
    for feature, branch in zip(model(x), (branches[1], branches[3]), strict=True):
        torch.testing.assert_close(feature, branch)
    assert not [k for k in model.state_dict() if 'neck' in k or 'classifier' in k]
    whole = timm.create_model('widehrnet_10')
    last, first = whole.forward_intermediates(x, indices=1)[1], whole.forward_intermediates(x, indices=[0, -1])[1]
    assert [f.shape[1] for f in last] == [256] and [f.shape[1] for f in first] == [32, 256]
    whole.prune_intermediate_layers([0])
    assert [b.shape[1] for b in whole(x)] == [32, 64, 128, 256]
    with pytest.raises(AssertionError, match='NCHW'):
        whole.forward_intermediates(x, output_fmt='NHWC')


# ---- every variant


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=[pytest.mark.slow] * ('_30' in n)) for n in widehrnet_zoo.list_models()]
)
def test_every_variant_trains(name):
    model = timm.create_model(name, num_classes=5).train()
    heatmaps = model(images(2, 3, 32, 32))
    assert heatmaps.shape == (2, 5, 8, 8) and heatmaps.isfinite().all()
    (heatmaps - 1).square().mean().backward()
    assert not [k for k, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert all(p.std() < 0.002 for k, p in model.named_parameters() if k.endswith('conv.weight'))


# ---- how it may be built and run


@torch.inference_mode()
@pytest.mark.parametrize('size', [(1, 1), (33, 47), (100, 75), (64, 224)])
def test_any_size_works(tiny, size):
    model = tiny()
    assert model(images(1, 3, *size)).shape == (1, 5, -(-size[0] // 4), -(-size[1] // 4))
    shapes = [b.shape[2:] for b in model.forward_branches(images(1, 3, *size))]
    assert shapes == [(-(-size[0] // s), -(-size[1] // s)) for s in (4, 8, 16, 32)]


@torch.inference_mode()
def test_device_and_type_are_honoured(tiny):
    parts = {'channels': (8, 12, 16), 'num_modules': (1, 1), 'num_blocks': 1, 'attn_layer': 'se'}
    model = WideHRNet(**parts, device='meta', dtype=torch.bfloat16)
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.device.type for t in tensors} == {'meta'}
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.bfloat16}
    assert model(torch.empty(1, 3, 64, 64, device='meta', dtype=torch.bfloat16)).dtype == torch.bfloat16
    model.reset_classifier(3)
    assert (model.classifier.weight.device.type, model.classifier.weight.dtype) == ('meta', torch.bfloat16)
    model = model.to_empty(device='cpu')
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.fill_(float('nan'))
    model.init_weights()
    assert all(t.isfinite().all() for t in model.state_dict().values())
    assert model.stem.conv.bn.running_var.eq(1).all() and 0 < model.stem.conv.conv.weight.std() < 0.002

    x, full = images(1, 3, 64, 64), tiny()
    expected = full(x)
    half = full.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize('layout', [torch.channels_last, torch.contiguous_format])
def test_every_convolution_gets_the_layout_of_the_images(tiny, layout):
    x, plain = images(2, 3, 64, 96), tiny()
    model = copy.deepcopy(plain).to(memory_format=layout)
    last = watch_layouts(model)
    found = model(x.contiguous(memory_format=layout))
    assert len(last) > 100 and set(last) == {layout == torch.channels_last}
    torch.testing.assert_close(found, plain(x))
    for shape in (4, 6), (1, 6), (6, 1), (1, 1):
        a, b = (images(2, 8, *shape, seed=i).contiguous(memory_format=layout) for i in (0, 1))
        shuffled = blocks.shuffle_halves(a, b)
        assert torch.equal(shuffled[:, ::2], a) and torch.equal(shuffled[:, 1::2], b)
        assert shuffled.is_contiguous(memory_format=layout)


@torch.inference_mode()
def test_scripted_traced_and_compiled_networks_are_the_same(tiny):
    x, model = images(2, 3, 32, 64), tiny(channels=(8, 12, 16), num_modules=(1, 1))
    expected = model(x)
    assert expected.std() > 0.01
    scripted, symbolic = torch.jit.script(model), torch.fx.symbolic_trace(model)
    for layout in torch.contiguous_format, torch.channels_last:
        x, model = x.contiguous(memory_format=layout), model.to(memory_format=layout)
        # what is traced has the way of one layout
        for network in scripted, symbolic, torch.jit.trace(model, x, check_trace=False):
            torch.testing.assert_close(network(x), expected)
    # in the other layout: test_estimator.py
    least = tiny(channels=(8, 12), num_modules=(1,)).to(memory_format=torch.channels_last)
    torch.testing.assert_close(torch.compile(least, backend='eager', fullgraph=True)(x), least(x))


@pytest.mark.slow
@torch.inference_mode()
def test_an_exported_network_is_the_same_and_takes_any_batch_and_size(tiny):
    model, sizes, shapes = tiny(channels=(8, 12, 16), num_modules=(1, 1)), [(2, 3, 64, 96)], None
    if hasattr(torch.export.Dim, 'AUTO'):  # an older PyTorch finds no dynamic sizes by itself
        auto = torch.export.Dim.AUTO
        sizes += [(1, 3, 96, 64), (3, 3, 128, 128), (2, 3, 100, 75)]
        shapes = ({0: auto, 2: auto, 3: auto},)
    exported = torch.export.export(model, (images(*sizes[0]),), dynamic_shapes=shapes).module()
    for size in sizes:
        torch.testing.assert_close(exported(images(*size)), model(images(*size)))


@torch.inference_mode()
@pytest.mark.parametrize('attn_layer', ['se', 'ese', 'eca', 'ceca', 'gc', 'cbam', 'lcbam', 'coord', 'ela', True])
def test_any_channel_attention_of_timm_works(tiny, attn_layer):
    x, model, plain = images(2, 3, 64, 64), tiny(attn_layer=attn_layer), tiny(attn_layer=None)
    missing, attention = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing and attention and all('.attn.' in k for k in attention)
    assert (model(x) - plain(x)).abs().max() > 1e-3


def test_squeeze_excitation_has_the_published_width():
    block = timm.create_model('widehrnet_18_attn', device='meta').stages[0][0].branches[0][0]
    # 40 / 2 * 4 = 80 channels, 80 / 4 = 20 to the nearest multiple of 8
    assert (block.attn.fc1.in_channels, block.attn.fc1.out_channels) == (80, 24)
    block = timm.create_model('widehrnet_18_x2_attn', device='meta').stages[0][0].branches[0][0]
    # 8 would be more than 10 % below 40 / 4 = 10
    assert (block.attn.fc1.in_channels, block.attn.fc1.out_channels) == (40, 16)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'channels': (8, 13, 16, 20)}, 'even'),
        ({'stem_width': 9}, 'even'),
        ({'num_modules': (1, 1)}, '4 branches need 3 stages'),
    ],
)
def test_widths_and_depths_that_do_not_fit_are_refused(tiny, kwargs, message):
    with pytest.raises(UserError, match=message):
        tiny(**kwargs)


@torch.inference_mode()
def test_fewer_branches_and_other_parts_work(tiny):
    model = tiny(channels=(8, 12, 16), num_modules=(1, 1), act_layer='silu', norm_layer='groupnorm1', expansion=3)
    assert model(images(1, 3, 64, 64)).shape == (1, 5, 16, 16)
    assert [f['reduction'] for f in model.feature_info] == [4, 8, 16]


def test_stochastic_depth_rises_and_is_for_training_only(tiny):
    model = tiny(drop_path_rate=0.3)
    rates = [m.drop_prob for m in model.modules() if type(m).__name__ == 'DropPath']
    assert rates == sorted(rates) and rates[-1] == pytest.approx(0.3)
    x = images(4, 3, 64, 64)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


@torch.inference_mode()
def test_nothing_is_changed_in_place(tiny):
    model, kept = tiny(), []

    def keep(module, args, output):
        for value in (*args, output):
            for tensor in value if isinstance(value, list) else [value]:
                kept.append((type(module).__name__, tensor, tensor.clone()))

    # activations do change the fresh outputs of their norms; what modules hand to each other stays
    for module in model.modules():
        if type(module).__module__ == widehrnet.__name__ or type(module).__name__ == 'ConvNormAct':
            module.register_forward_hook(keep)
    x = images(2, 3, 64, 64)
    model(x)
    assert len(kept) > 200
    assert not [name for name, tensor, copy in kept if not torch.equal(tensor, copy)]


def train_step(model, x):
    stored, forwards = 0, 0

    def pack(tensor):
        nonlocal stored
        stored += tensor.numel()
        return tensor

    def count(*_):
        nonlocal forwards
        forwards += 1

    handles = [m.register_forward_pre_hook(count) for stage in model.stages for m in stage]
    model.train().zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = model(x).square().mean()
        in_forward = stored
    loss.backward()
    for handle in handles:
        handle.remove()
    return {k: p.grad.clone() for k, p in model.named_parameters()}, in_forward, forwards


@pytest.mark.parametrize('reentrant', [False, True])
def test_gradient_checkpointing_recomputes_and_changes_nothing(tiny, reentrant):
    x, plain, thrifty = images(2, 3, 64, 64), tiny(drop_path_rate=0.2), tiny(drop_path_rate=0.2)
    thrifty.set_grad_checkpointing()
    was = timm.layers.use_reentrant_ckpt()
    timm.layers.set_reentrant_ckpt(reentrant)
    try:
        torch.manual_seed(0)
        grads, stored, forwards = train_step(plain, x)
        torch.manual_seed(0)
        thrifty_grads, thrifty_stored, thrifty_forwards = train_step(thrifty, x)
    finally:
        timm.layers.set_reentrant_ckpt(was)
    assert (forwards, thrifty_forwards) == (4, 8)
    assert thrifty_stored < stored / 2
    for key, grad in grads.items():
        torch.testing.assert_close(thrifty_grads[key], grad, msg=key)
    # a batch counts once in the running statistics
    for key, buffer in plain.named_buffers():
        torch.testing.assert_close(thrifty.get_buffer(key), buffer, msg=key)
    assert thrifty.stages[0][0].branches[0][0].conv_pw.bn.num_batches_tracked == 1
    assert {m.momentum for m in thrifty.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


@pytest.mark.slow
def test_gradient_checkpointing_works_compiled(tiny):
    x, kwargs = images(2, 3, 64, 64), {'channels': (8, 12, 16), 'num_modules': (1, 1)}
    plain, thrifty = tiny(**kwargs).train(), tiny(**kwargs).train()
    thrifty.set_grad_checkpointing()
    plain(x).square().mean().backward()
    torch.compile(thrifty, backend='aot_eager')(x).square().mean().backward()
    for key, parameter in plain.named_parameters():
        torch.testing.assert_close(thrifty.get_parameter(key).grad, parameter.grad, msg=key)
    for key, buffer in plain.named_buffers():
        torch.testing.assert_close(thrifty.get_buffer(key), buffer, msg=key)


def test_layers_are_ordered_for_layer_wise_learning_rates(tiny):
    from timm.models import group_parameters

    model = tiny()
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    assert set(layers) == {k for k, _ in model.named_parameters()}
    order = [
        layers[k]
        for k in (
            'stem.conv.conv.weight',
            'transitions.0.new.conv_dw.conv.weight',
            'stages.0.0.branches.0.0.conv_pw.conv.weight',
            'stages.1.1.branches.0.0.conv_pw.conv.weight',
            'stages.2.0.fuse.paths.0.1.conv.weight',
            'neck.projects.0.conv_dw.conv.weight',
            'classifier.weight',
        )
    ]
    assert order == sorted(order)
    assert len({layers[k] for k in ('stem.conv.conv.weight', 'classifier.weight')}) == 2
