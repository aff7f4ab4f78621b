import os

import numpy as np
import pytest
import timm
import torch
from dots import COCO, DOTS, SIZE, ReadsDots, dots, light, photo
from PIL import Image
from small_model import small

from widehrnet_zoo import SKELETONS, PoseEstimator, PoseResult, Skeleton, create_model, deploy
from widehrnet_zoo.engines.opening import HeatmapBackend
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.inference import photo as photo_module
from widehrnet_zoo.inference.photo import Photo
from widehrnet_zoo.pose.decoding import DECODERS


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('flip_test', [False, True])
def test_keypoints_come_out_in_image_pixels(decoder, flip_test):
    image, keypoints, boxes = photo(3)
    result = dots()(image, boxes, decoder=decoder, flip_test=flip_test)
    assert isinstance(result, PoseResult) and len(result) == 3 and result.image_size == (1050, 400)
    # a heatmap pixel is 7 image pixels here
    assert np.abs(result.keypoints - keypoints).max() < 5
    assert np.abs(result.keypoints - keypoints).mean() < 2
    np.testing.assert_array_equal(result.boxes, boxes.astype(np.float32))


@pytest.mark.parametrize('kind', ['path', 'PIL', 'array', 'tensor'])
def test_a_picture_may_come_in_any_form(tmp_path, kind):
    image, _, boxes = photo()
    path = tmp_path / 'photo.png'
    Image.fromarray(image).save(path)
    source = {
        'path': str(path),
        'PIL': Image.fromarray(image),
        'array': image,
        'tensor': torch.tensor(image).permute(2, 0, 1),
    }[kind]
    estimator = dots()
    result = estimator(source, boxes[0])
    np.testing.assert_array_equal(result.keypoints, estimator(image, torch.tensor(boxes)).keypoints)
    assert result.path == (str(path) if kind == 'path' else None)


def test_without_boxes_it_looks_again_at_what_it_found():
    image, keypoints, _ = photo()
    result = dots()(image)
    x1, y1, x2, y2 = result.boxes[0]
    assert len(result) == 1 and x2 - x1 < 200 and y2 - y1 < 360
    assert (keypoints[0] > (x1, y1)).all() and (keypoints[0] < (x2, y2)).all()
    assert np.abs(result.keypoints - keypoints).max() < 5


def test_without_a_person_the_whole_picture_stands():
    estimator = dots()
    result = estimator(np.full((60, 80, 3), 128, np.uint8))
    assert result.boxes.tolist() == [[0, 0, 80, 60]] and result.scores.max() < 0.2
    assert estimator.backend.batches == [1]
    assert dots()(np.full((1, 1, 3), 128, np.uint8)).boxes.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(('batch_size', 'batches'), [(4, [4, 4, 1]), (1, [1] * 9), (100, [9])])
def test_batches_are_full_across_pictures_and_change_nothing(batch_size, batches):
    counts = (3, 0, 1, 3, 2)
    photos = [photo(max(n, 1), seed=i) for i, n in enumerate(counts)]
    boxes = [p[2][:n] for p, n in zip(photos, counts, strict=True)]
    estimator = dots(batch_size=batch_size)
    results = estimator([p[0] for p in photos], boxes)
    assert estimator.backend.batches == batches
    assert [len(r) for r in results] == list(counts)
    for result, (image, _, _), own in zip(results, photos, boxes, strict=True):
        alone = dots()(image, own)
        np.testing.assert_allclose(result.keypoints, alone.keypoints, atol=1e-4)


def test_pictures_with_and_without_boxes_mix():
    one, two = photo(1, seed=1), photo(2, seed=2)
    results = dots(batch_size=2)([one[0], two[0], one[0]], [None, two[2], one[2]], [None, [0.5, 0.25], None])
    assert [len(r) for r in results] == [1, 2, 1]
    assert results[1].box_scores.tolist() == [0.5, 0.25] and results[2].box_scores.tolist() == [1]
    assert np.abs(results[0].keypoints - one[1]).max() < 5
    stack = np.stack([one[0], one[0][:, ::-1]])
    assert len(dots()(stack)) == 2


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_a_stream_keeps_the_order_and_reads_no_further_ahead_than_it_says(workers):
    photos = [photo(1 + i % 3, seed=i) for i in range(12)]
    read = []

    def coming():
        for i, (image, _, _) in enumerate(photos):
            read.append(i)
            yield image

    stream = dots(batch_size=2).stream(coming(), (p[2] for p in photos), workers=workers)
    next(stream)
    assert len(read) <= 3 + 2 * workers
    results = list(stream)
    assert [len(r) for r in results] == [1 + i % 3 for i in range(1, 12)]
    for result, (_, keypoints, _) in zip(results, photos[1:], strict=True):
        assert np.abs(result.keypoints - keypoints).max() < 5


@pytest.mark.parametrize('options', [{'boxes': 3}, {'boxes': 0}, {'boxes': 5, 'box_scores': 2}, {'boxes': 7}])
@pytest.mark.parametrize('kind', [list, iter])
def test_no_image_is_lost_where_boxes_or_scores_are_fewer(options, kind):
    image, _, boxes = photo()
    entries = {'boxes': [boxes] * options['boxes'], 'box_scores': [[1.0]] * options.get('box_scores', 0)}
    given = {name: kind(values) for name, values in entries.items() if name in options}
    found = []
    try:
        for result in dots().stream([image] * 5, **given):
            found.append(result)
    except UserError as error:
        assert 'for each' in str(error) and (kind is iter or not found)
    else:
        assert len(found) == 5 and options == {'boxes': 7}


def test_a_photo_that_fails_is_skipped_by_its_place_and_a_detector_is_asked_where_boxes_are_missing(tmp_path):
    image, keypoints, boxes = photo(2)
    (tmp_path / 'broken.jpg').write_bytes(b'no photo')
    photos = [Photo(image, boxes[:1]), Photo(tmp_path / 'broken.jpg'), Photo(image), Photo(image, [0, 0, 9, -9])]
    failed = []
    found = list(
        dots().look(photos, detector=lambda image: (boxes, [0.5, 0.7]), skip=lambda place, error: failed.append(place))
    )
    assert failed == [1, 3] and [f.place for f in found] == [0, 2]
    assert found[1].result.box_scores.tolist() == pytest.approx([0.7, 0.5])
    assert np.abs(found[1].result.keypoints[::-1] - keypoints).max() < 5
    with pytest.raises(UserError, match='broken'):
        list(dots().look(photos))


def test_the_flip_test_swaps_left_and_right():
    class Sided(ReadsDots):
        skeleton = Skeleton('two', ('left_x', 'right_x'), ((0, 1),))

        def __call__(self, images):
            self.batches.append(images)
            out = np.zeros((len(images), 2, 64, 48), np.float32)
            # `left_x` answers on the left half, whatever the picture
            out[:, 0, 30, 10] = out[:, 1, 30, 37] = 1
            return out

    estimator = PoseEstimator(backend=Sided())
    image = np.random.default_rng(0).integers(0, 256, (256, 192, 3), np.uint8)
    heatmaps = estimator.heatmaps(image[None], flip_test=True)
    plain, mirrored = estimator.backend.batches
    np.testing.assert_array_equal(mirrored, plain[..., ::-1])
    # mirrored back, `right_x` at 37 is `left_x` at 10, and one pixel on
    assert heatmaps[0, 0, 30, 10] == 0.5 and heatmaps[0, 0, 30, 11] == 0.5


def test_a_module_runs_as_it_does_by_hand():
    estimator = light()
    crop = np.random.default_rng(0).integers(0, 256, (256, 192, 3), np.uint8)
    x = (torch.tensor(crop).permute(2, 0, 1)[None] / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / (
        torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    )
    with torch.no_grad():
        expected = estimator.model(x)
    np.testing.assert_allclose(estimator.heatmaps(crop[None]), expected, rtol=1e-4, atol=1e-6)
    assert not estimator.model.training and estimator.skeleton == COCO


def test_bf16_stays_near_float32():
    model = light().model
    crops = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    exact = PoseEstimator(model, size=(64, 64)).heatmaps(crops)
    rough = PoseEstimator(model, size=(64, 64), bf16=True).heatmaps(crops)
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    assert (exact - rough).abs().max() < 0.1 * exact.abs().max()


def test_a_backend_is_any_callable_that_says_what_it_is():
    assert isinstance(ReadsDots(), HeatmapBackend)
    image, keypoints, boxes = photo()
    plain = ReadsDots()
    estimator = PoseEstimator(backend=lambda x: plain(x), size=SIZE, skeleton=DOTS, mean=(0, 0, 0), std=(1, 1, 1))
    assert np.abs(estimator(image, boxes).keypoints - keypoints).max() < 5
    with pytest.raises(UserError, match='no torch module'):
        _ = estimator.model
    with pytest.raises(UserError, match='size'):
        PoseEstimator(backend=lambda x: x)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'decoder': 'best'}, 'quarter'),
        ({'batch_size': 0}, 'batch size'),
        ({'batch_size': 1.5}, 'batch size'),
        ({'size': (100, 100)}, 'multiples of 32'),
        ({'std': (1, 1, 0)}, 'std'),
        ({'mean': (1, 1)}, 'mean'),
        ({'model': 'widehrnet_10'}, 'in place of'),
        ({'engine': 'kernels'}, 'in place of'),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        dots(**options)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (([photo()[0]], photo()[2]), 'list of 1'),
        (([photo()[0]] * 2, [None]), 'list of 2'),
        ((photo()[0], [10, 10, 5, 5]), 'x, y, width'),
        ((photo()[0], [400, 10, 500, 50]), 'outside'),
        ((photo()[0], [10, 10, 50, 50], [0.5, 0.4]), 'box_scores'),
        ((photo()[0], [10, 10, 50, 50], ['a']), 'box_scores'),
        ((photo()[0], None, [1]), 'without boxes'),
        (('nowhere.jpg',), 'no file'),
    ],
)
def test_calls_that_cannot_be_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        dots()(*call)


def test_images_for_look_and_people_who_are_not_there_are_told():
    with pytest.raises(UserError, match='takes Photo'):
        next(dots().look(['photo.jpg']))
    found = dots()(photo()[0], np.zeros((0, 4)))
    with pytest.raises(IndexError, match='no person 0: 0 were found'):
        found.named(0)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: PoseEstimator(create_model('widehrnet_10', global_pool='avg')), "global_pool=''"),
        (lambda: PoseEstimator(create_model('widehrnet_10', num_classes=0)), 'num_classes=0'),
        (lambda: PoseEstimator(create_model('widehrnet_10', in_chans=1)), 'channels'),
        (lambda: PoseEstimator(torch.nn.Conv2d(3, 17, 4, 4)), 'size'),
        (lambda: PoseEstimator('widehrnet_19'), 'widehrnet_18'),
        (lambda: PoseEstimator('widehrnet_10', device='cpu'), 'weights'),
        (lambda: PoseEstimator(create_model('widehrnet_10'), device='tpu9'), 'cpu'),
        (lambda: PoseEstimator('nowhere.onnx'), 'no file'),
        (lambda: PoseEstimator('nowhere.safetensors'), 'nowhere'),
        (lambda: light(num_classes=5)(photo()[0], flip_test=True), 'left and right'),
    ],
)
def test_models_that_cannot_be_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_folders_without_a_model_are_told_apart(tmp_path):
    with pytest.raises(UserError, match='holds no model'):
        PoseEstimator(tmp_path)
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model/config.json').touch()
    with pytest.raises(UserError, match=r'folder of a training run: its model is .*model\.'):
        PoseEstimator(tmp_path)
    for name in 'ab':
        (tmp_path / f'{name}.xml').touch()
    with pytest.raises(UserError, match='2 models for OpenVINO'):
        PoseEstimator(tmp_path)


@pytest.mark.parametrize(
    ('heatmaps', 'message'),
    [(np.zeros((1, 16, 64, 48), np.float32), 'expected heatmaps'), (np.full((1, 17, 64, 48), np.nan), 'NaN')],
)
def test_a_model_that_gives_something_else_is_refused(heatmaps, message):
    with pytest.raises(UserError, match=message):
        PoseEstimator(backend=lambda x: heatmaps, size=SIZE, skeleton=COCO)(photo()[0], photo()[2])


def test_weights_of_a_file_are_found_to_be_their_variants(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = create_model('widehrnet_10_attn').eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    path = tmp_path / 'mine.safetensors'
    save_file(model.state_dict(), path)
    image, _, boxes = photo()
    eager = {'engine': 'eager'}
    expected = PoseEstimator(model, **eager)(image, boxes).keypoints
    for estimator in (
        PoseEstimator(weights=path, **eager),
        PoseEstimator(str(path), **eager),
        PoseEstimator('widehrnet_10_attn', weights=str(path), **eager),
    ):
        np.testing.assert_array_equal(estimator(image, boxes).keypoints, expected)
    with pytest.raises(UserError, match='widehrnet_10_attn, not of widehrnet_18'):
        PoseEstimator('widehrnet_18', weights=path)
    with pytest.raises(UserError, match='do not fit'):
        PoseEstimator(create_model('widehrnet_10'), weights=path)


def test_keypoints_of_ones_own_keep_their_names(tmp_path):
    from safetensors.torch import save_file

    mpii = create_model('widehrnet_18', num_classes=16)
    save_file(mpii.state_dict(), tmp_path / 'mine.safetensors')
    assert PoseEstimator(weights=tmp_path / 'mine.safetensors', engine='eager').skeleton == SKELETONS['mpii']
    with pytest.raises(UserError, match='16 keypoints'):
        PoseEstimator('widehrnet_18.coco_256x192', weights=tmp_path / 'mine.safetensors')


@pytest.mark.parametrize('wrap', [lambda m: torch.compile(m, backend='eager'), torch.nn.DataParallel])
def test_wrapped_modules_give_the_same_keypoints(wrap):
    model = small().eval()
    wrapped, image = wrap(model), np.zeros((64, 48, 3), np.uint8)
    expected = PoseEstimator(model, size=(64, 64), engine='eager', detector=None)(image)
    found = PoseEstimator(wrapped, size=(64, 64), detector=None)
    assert found.model is wrapped and found.skeleton is COCO and found(image) == expected
    assert type(deploy(wrapped)) is type(deploy(model))


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes are not forked here')
@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
def test_a_forked_process_gets_an_error_instead_of_waiting(monkeypatch):
    estimator, image = PoseEstimator(backend=ReadsDots()), photo()[0]
    estimator(image)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 4)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            estimator(image)
        except UserError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    assert "'spawn'" in os.read(read, 1000).decode()


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_a_large_photo_is_read_smaller_and_its_keypoints_are_in_its_own_pixels(tmp_path, monkeypatch, suffix):
    pixels, keypoints, boxes = photo(2)
    image = Image.fromarray(pixels)
    large = image.resize((4 * image.width, 4 * image.height), Image.Resampling.LANCZOS)
    large.save(tmp_path / f'large.{suffix}', quality=95)
    monkeypatch.setattr(photo_module, 'LARGE', image.width * image.height)
    estimator = PoseEstimator(backend=ReadsDots())
    found = next(estimator.look([Photo(str(tmp_path / f'large.{suffix}'), 4 * np.array(boxes))]))
    assert found.image.shape == (image.height, image.width, 3)
    assert found.result.image_size == large.size
    np.testing.assert_allclose(found.result.boxes, 4 * np.array(boxes), rtol=1e-5)
    np.testing.assert_allclose(found.result.keypoints, 4 * (np.array(keypoints) + 0.5) - 0.5, atol=8)
    # boxes that a detector sees in the smaller image
    large = Photo(str(tmp_path / f'large.{suffix}'))
    by_detector = next(estimator.look([large], detector=lambda im: (boxes, [1.0, 1.0]), second_look=False)).result
    order = np.argsort(by_detector.boxes[:, 0])
    np.testing.assert_allclose(by_detector.keypoints[order], found.result.keypoints, atol=0.01)


def test_several_images_in_other_things_than_lists_are_said_before_any_work():
    estimator = PoseEstimator(backend=ReadsDots())
    for images in ((image for image in ['a.jpg']), map(str, ['a.jpg']), {'a.jpg'}):
        with pytest.raises(UserError, match=r'as a list, or .* to `stream`'):
            estimator(images)
    for image in ('a.jpg', b'abc', np.zeros((64, 64, 3), np.uint8), Image.new('RGB', (64, 64)), 3):
        with pytest.raises(UserError, match='call the estimator itself with one image'):
            estimator.stream(image)
    assert len(list(estimator.stream(image for image in [np.zeros((64, 64, 3), np.uint8)] * 2))) == 2


def test_the_size_by_the_names_of_other_libraries_is_told():
    with pytest.raises(UserError, match=r'size=\(height, width\)'):
        PoseEstimator('widehrnet_10', img_size=256)
    for create in (create_model, timm.create_model):
        with pytest.raises(UserError, match='img_size is not needed'):
            create('widehrnet_10', img_size=256)


def test_a_module_of_pytorch_has_a_padding_of_another_kind():
    network = torch.nn.Conv2d(3, 17, 7, stride=4, padding=3)
    estimator = PoseEstimator(network, size=(64, 64), skeleton=SKELETONS['coco'], detector=None)
    assert estimator.padding == 1.25
    with pytest.raises(UserError, match='Conv2d does not say what its keypoints are: give the skeleton'):
        PoseEstimator(network, size=(64, 64))
    assert estimator(np.zeros((64, 64, 3), np.uint8)).keypoints.shape == (1, 17, 2)
