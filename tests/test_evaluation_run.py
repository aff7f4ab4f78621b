"""Whole evaluations on small sets made here: a network that reads keypoints off coloured dots."""

import json

import numpy as np
import pytest
import torch
from dots import COCO, DotNetwork, dotted_set
from PIL import Image

pytest.importorskip('pycocotools')
from widehrnet_zoo.errors import UserError
from widehrnet_zoo.evaluation.predict import PredictConfig, predict
from widehrnet_zoo.evaluation.run import Protocol, evaluate
from widehrnet_zoo.evaluation.store import PredictionStore
from widehrnet_zoo.evaluation.subject import describe_model
from widehrnet_zoo.formats.coco import labelled_boxes, read_labels
from widehrnet_zoo.inference.estimator import PoseEstimator
from widehrnet_zoo.pose.skeletons import SKELETONS, Skeleton
from widehrnet_zoo.training.crops import CropCache
from widehrnet_zoo.training.people import read_people


def estimator_of(num=17, skeleton=COCO, size=(256, 192)):
    return PoseEstimator(DotNetwork(num), size=size, skeleton=skeleton, mean=(0, 0, 0), std=(1, 1, 1))


def quiet(name, **more):
    protocol = Protocol.published(name)
    return Protocol(
        name, PredictConfig(**{'progress': False, 'batch_size': 2, **more}), clip=protocol.clip, nms=protocol.nms
    )


def test_keypoints_come_back_through_crop_network_and_decoding(tmp_path):
    labels = read_labels(dotted_set(tmp_path))
    samples = labelled_boxes(labels, tmp_path)
    found = predict(estimator_of(), samples, PredictConfig(progress=False, batch_size=4))
    truth = labels.keypoints(labels.people)
    # a heatmap pixel is about 7 image pixels here; a quarter of one, and the dot's own roundness, may be lost
    assert np.abs(found[..., :2] - truth[..., :2]).max() < 4


def test_a_detectors_boxes_give_ap_1_and_double_boxes_are_suppressed(tmp_path):
    data = dotted_set(tmp_path)
    boxes = [
        {'image_id': a['image_id'], 'category_id': 1, 'score': 0.9, 'bbox': a['bbox']}
        for a in json.loads(data.read_text())['annotations']
    ]
    twice = [{**b, 'score': 0.5, 'bbox': [v + 2 for v in b['bbox']]} for b in boxes]
    (tmp_path / 'boxes.json').write_text(json.dumps(boxes + twice))
    report = evaluate(
        quiet('coco'), data, tmp_path, estimator_of(), boxes=tmp_path / 'boxes.json', out=tmp_path / 'out'
    )
    assert report.figures['AP'] == pytest.approx(1)
    assert len(json.loads((tmp_path / 'out' / 'results.json').read_text())) == 6
    saved = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert saved['switches']['boxes'] == 'boxes.json' and saved['switches']['oks_nms'] == 0.9
    assert saved['figures'] == report.figures
    assert 'AP ' in (tmp_path / 'out' / 'report.md').read_text()
    assert Image.open(tmp_path / 'out' / 'worst.png').size[0] > 500


def test_the_flip_test_averages_aligned_heatmaps(tmp_path):
    # dots look the same mirrored, so a skeleton without sides is the honest one
    skeleton = Skeleton('dots', tuple(f'dot {k}' for k in range(17)), (), (), COCO.sigmas)
    labels = read_labels(dotted_set(tmp_path))
    samples = labelled_boxes(labels, tmp_path)
    truth = labels.keypoints(labels.people)[..., :2]
    errors = {}
    for flip in (False, True):
        estimator = estimator_of(skeleton=skeleton)
        found = predict(estimator, samples, PredictConfig(flip_test=flip, progress=False))
        errors[flip] = np.abs(found[..., :2] - truth).mean()
        assert estimator.model.calls == 1 + flip
    assert errors[True] < 2.5


def test_a_cut_off_run_goes_on_and_another_run_is_refused(tmp_path):
    data, out = dotted_set(tmp_path), tmp_path / 'out'
    protocol = quiet('pck')
    whole = evaluate(protocol, data, tmp_path, estimator_of(), out=tmp_path / 'whole', worst=0)

    broken = estimator_of()
    forward = broken.model.forward

    def fails_at_the_third(x):
        if broken.model.calls == 2:
            raise KeyboardInterrupt
        return forward(x)

    broken.model.forward = fails_at_the_third
    with pytest.raises(KeyboardInterrupt):
        evaluate(protocol, data, tmp_path, broken, out=out, worst=0)
    assert not (out / 'report.json').exists()
    resumed = estimator_of()
    report = evaluate(protocol, data, tmp_path, resumed, out=out, worst=0)
    assert resumed.model.calls == 1
    assert report.figures == whole.figures
    with pytest.raises(UserError, match='decoder changed'):
        evaluate(quiet('pck', decoder='soft'), data, tmp_path, estimator_of(), out=out, worst=0)
    again = estimator_of()
    evaluate(quiet('pck', decoder='soft'), data, tmp_path, again, out=out, worst=0, restart=True)
    assert again.model.calls == 3


def test_predictions_of_unknown_weights_are_not_taken_for_those_of_others(tmp_path):
    data, out = dotted_set(tmp_path), tmp_path / 'out'

    def backend_of(shift):
        dots = DotNetwork(17)

        def backend(images):
            with torch.inference_mode():
                return dots(torch.from_numpy(images)).roll(shift, 2).numpy()

        return PoseEstimator(backend=backend, size=(256, 192), skeleton=COCO, mean=(0, 0, 0), std=(1, 1, 1))

    good = evaluate(quiet('pck'), data, tmp_path, backend_of(0), out=out, worst=0)
    with pytest.raises(UserError, match='weights changed'):
        evaluate(quiet('pck'), data, tmp_path, backend_of(20), out=out, worst=0)
    bad = evaluate(quiet('pck'), data, tmp_path, backend_of(20), out=out, worst=0, restart=True)
    assert good.figures['PCK@0.2 box'] == 1 > bad.figures['PCK@0.2 box']


def test_the_weights_beside_an_openvino_graph_count(tmp_path):
    def described():
        exported = DotNetwork(17)
        exported.path, exported.size, exported.skeleton = tmp_path / 'pose.xml', (256, 192), COCO
        return describe_model(PoseEstimator(backend=exported), None)['weights']

    seen = set()
    for graph, weights in ((b'graph', b'old'), (b'graph', b'new'), (b'other', b'new')):
        (tmp_path / 'pose.xml').write_bytes(graph)
        (tmp_path / 'pose.bin').write_bytes(weights)
        seen.add(described())
    assert len(seen) == 3


def test_a_torn_part_is_made_again(tmp_path):
    store = PredictionStore(tmp_path / 'p', {}, 4)
    store.add(np.arange(2), np.ones((2, 17, 3), np.float32))
    store.add(np.arange(2, 4), np.ones((2, 17, 3), np.float32))
    torn = sorted((tmp_path / 'p').glob('part-*.npz'))[1]
    torn.write_bytes(torn.read_bytes()[:100])
    keypoints, done = PredictionStore(tmp_path / 'p', {}, 4).load(17)
    assert done.tolist() == [True, True, False, False] and np.isnan(keypoints[2:]).all()


def test_mpii_end_to_end(tmp_path):
    scipy_io = pytest.importorskip('scipy.io')
    skeleton = SKELETONS['mpii']
    labels = json.loads(dotted_set(tmp_path, people=1, num=16).read_text())
    truth = np.array([a['keypoints'] for a in labels['annotations']], float).reshape(-1, 16, 3)[..., :2] + 1
    # the view is to end up at centre (140, 195) of 0-based pixels, 400 wide
    scale = 400 / 200 / 1.25
    (tmp_path / 'mpii_val.json').write_text(
        json.dumps([{'image': f'{i + 1}.png', 'center': [141, 196 - 15 * scale], 'scale': scale} for i in range(3)])
    )
    boxes = np.zeros((2, 2, 3))
    boxes[1] = 60
    scipy_io.savemat(
        tmp_path / 'mpii_gt_val.mat',
        {'pos_gt_src': truth.transpose(1, 2, 0), 'jnt_missing': np.zeros((16, 3)), 'headboxes_src': boxes},
    )
    estimator = estimator_of(16, skeleton, (256, 256))
    protocol = Protocol('mpii', PredictConfig(progress=False))
    report = evaluate(protocol, tmp_path / 'mpii_val.json', tmp_path, estimator, out=tmp_path / 'out', draws=10)
    assert report.figures['PCKh@0.5'] == 1
    assert report.intervals['PCKh@0.5'] == (1, 1)
    assert (tmp_path / 'out' / 'worst.png').exists()
    again = evaluate(protocol, tmp_path / 'mpii_val.json', results=tmp_path / 'out' / 'results.json')
    assert again.figures == report.figures


def test_real_coco_labels_and_photos(shared, tmp_path):
    data = shared / 'coco_mini' / 'annotations.json'
    labels = read_labels(data)
    people = labels.people
    assert len(labels.images) == 28 and len(people) == 86
    truth = [
        {'image_id': a['image_id'], 'category_id': 1, 'score': 1.0, 'keypoints': a['keypoints'], 'ann': a['id']}
        for a in people
    ]
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    perfect = evaluate(Protocol.published('coco'), data, results=tmp_path / 'truth.json')
    assert perfect.figures['AP'] == pytest.approx(1) and perfect.figures['AR'] == pytest.approx(1)
    # a network that knows only dots finds nobody in photos, but every photo is read and every person gets a result
    report = evaluate(
        quiet('coco', flip_test=True),
        data,
        shared / 'coco_mini' / 'images',
        estimator_of(size=(64, 64)),
        out=tmp_path / 'out',
    )
    found = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert {r['ann'] for r in found} <= {a['id'] for a in people} and len(found) > 43
    assert report.figures['AP'] < 0.1
    assert (tmp_path / 'out' / 'worst.png').stat().st_size > 10_000


def test_bfloat16_and_other_backends_are_measured_and_named(tmp_path):
    data = dotted_set(tmp_path)
    plain = evaluate(quiet('pck'), data, tmp_path, estimator_of(), name='dots')
    assert plain.subject['model'] == 'dots, input 256x192' and plain.subject['precision'] == 'float32'
    dots = DotNetwork(17)

    def backend(images):
        with torch.inference_mode():
            return dots(torch.from_numpy(images)).numpy()

    other = PoseEstimator(backend=backend, size=(256, 192), skeleton=COCO, mean=(0, 0, 0), std=(1, 1, 1))
    assert evaluate(quiet('pck'), data, tmp_path, other).figures == plain.figures
    half = PoseEstimator(dots, size=(256, 192), skeleton=COCO, mean=(0, 0, 0), std=(1, 1, 1), bf16=True)
    report = evaluate(quiet('pck'), data, tmp_path, half)
    assert report.subject['precision'] == 'bfloat16 autocast'
    assert report.figures['PCK@0.2 box'] == 1


def test_missing_photos_are_named(tmp_path):
    data = dotted_set(tmp_path)
    (tmp_path / '2.png').unlink()
    with pytest.raises(UserError, match=r'2\.png'):
        evaluate(quiet('coco'), data, tmp_path, estimator_of())


def test_a_model_of_another_data_set_is_refused(tmp_path):
    with pytest.raises(UserError, match='17 keypoints and the model 16'):
        evaluate(quiet('coco'), dotted_set(tmp_path), tmp_path, estimator_of(16, SKELETONS['mpii']))


def renumbered(labels, annotation=lambda n: n, image=lambda n: n, category=1):
    """The label file with other ids, and results as foreign tools write them: perfect ones."""
    data = json.loads(labels.read_text())
    for entry in data['images']:
        entry['id'] = image(entry['id'])
    for entry in data['annotations']:
        entry.update(id=annotation(entry['id']), image_id=image(entry['image_id']), category_id=category)
    data['categories'] = [{'id': category, 'name': 'person'}]
    labels.write_text(json.dumps(data))
    results = labels.with_name('results.json')
    keys = ('image_id', 'category_id', 'keypoints', 'bbox')
    results.write_text(json.dumps([{**{k: a[k] for k in keys}, 'score': 0.9} for a in data['annotations']]))
    return results


@pytest.mark.parametrize(
    'ids',
    [
        {'annotation': lambda n: n - 1, 'image': lambda n: n - 1},
        {'annotation': lambda n: float(n - 1), 'image': float},
        {'annotation': str, 'image': lambda n: f'photo {n}'},
        {'annotation': lambda n: str(n) if n % 2 else n, 'image': lambda n: str(n) if n % 2 else n},
        {'annotation': lambda n: 2**70 + n, 'image': lambda n: -n},
        {'category': 0},
        {'category': 5},
        {'category': 'human'},
    ],
)
def test_perfect_results_are_perfect_whatever_the_ids_are(tmp_path, ids):
    labels = dotted_set(tmp_path, num_images=2)
    results = renumbered(labels, **ids)
    for protocol in ('coco', 'pck'):
        if protocol == 'pck':  # which needs to know who is who
            people = json.loads(labels.read_text())['annotations']
            found = json.loads(results.read_text())
            named = [{**r, 'ann': a['id']} for a, r in zip(people, found, strict=True)]
            results.write_text(json.dumps(named))
        figures = evaluate(Protocol.published(protocol), labels, results=results, draws=2).figures
        assert figures['AP' if protocol == 'coco' else 'OKS AP'] == pytest.approx(1)


def test_results_of_other_ids_or_categories_are_refused_and_others_left_out(tmp_path):
    labels = dotted_set(tmp_path, num_images=2)
    results = renumbered(labels)
    found = json.loads(results.read_text())
    for change, message in (
        ({'category_id': 5}, 'None of the 4 results is of the category 1'),
        ({'image_id': '1'}, "'1'"),
    ):
        results.write_text(json.dumps([{**r, **change} for r in found]))
        with pytest.raises(UserError, match=message):
            evaluate(Protocol.published('coco'), labels, results=results)
    # a dog that was found as well, and boxes that only some results have
    other = {**found[0], 'category_id': 18, 'score': 1.0}
    results.write_text(json.dumps([other, found[0], *({k: r[k] for k in r if k != 'bbox'} for r in found[1:])]))
    assert evaluate(Protocol.published('coco'), labels, results=results).figures['AP'] == 1


@pytest.mark.parametrize('names', [None, ('a', 'b', 'c')])
def test_the_sigmas_of_the_label_file_are_used_for_models_and_for_results(tmp_path, names):
    num = 3 if names else 17
    labels = dotted_set(tmp_path, num_images=2, people=1, num=num)
    data = json.loads(labels.read_text())
    skeleton = Skeleton('abc', names) if names else COCO
    figures = []
    for sigma in (0.5, 0.0005):
        data['categories'][0].update(keypoints=list(skeleton.keypoints), sigmas=[sigma] * num)
        labels.write_text(json.dumps(data))
        model = evaluate(quiet('coco'), labels, tmp_path, estimator_of(num, skeleton), out=tmp_path / f'{sigma}')
        found = evaluate(Protocol.published('coco'), labels, results=tmp_path / f'{sigma}' / 'results.json')
        assert model.figures == found.figures
        figures.append(model.figures['AP'])
    assert figures[0] == 1 and figures[1] < 0.1
    for wrong in ([0.1], 'wide', [-1.0] * num):
        data['categories'][0]['sigmas'] = wrong
        labels.write_text(json.dumps(data))
        with pytest.raises(UserError, match='sigma'):
            evaluate(quiet('coco'), labels, tmp_path, estimator_of(num, skeleton))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda image, person: image.update(width=400, height=640), r'1\.png is 640x400 .* say 400x640: .*EXIF'),
        (lambda image, person: image.update(width=1280, height=800), r'1\.png is 640x400 .* resized after labelling'),
        (lambda image, person: person.update(bbox=[1000, 20, 50, 50]), r'1\.png: .* outside'),
        (lambda image, person: person.update(bbox=[0.1, 0.1, 0.3, 0.8]), r'1\.png: .* not fractions'),
    ],
)
def test_labels_that_are_not_of_their_photo_are_refused_in_evaluation_and_training(tmp_path, caplog, change, message):
    labels = dotted_set(tmp_path, num_images=1, people=1)
    data = json.loads(labels.read_text())
    change(data['images'][0], data['annotations'][0])
    labels.write_text(json.dumps(data))
    for protocol in ('coco', 'pck'):
        with pytest.raises(UserError, match=message):
            evaluate(quiet(protocol), labels, tmp_path, estimator_of())
    with pytest.raises(UserError, match=message):
        CropCache.build(read_people(labels), tmp_path, tmp_path / 'cache', 64, progress=False)


def test_the_exif_orientation_is_followed_by_labels_of_the_upright_photo(tmp_path):
    labels = dotted_set(tmp_path, num_images=1, people=1)
    photo = next(tmp_path.glob('*.png'))
    with Image.open(photo) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        # stored lying on its side, shown upright
        image.transpose(Image.Transpose.ROTATE_90).save(photo, exif=exif)
    report = evaluate(quiet('coco'), labels, tmp_path, estimator_of())
    assert report.figures['AP'] == pytest.approx(1)
    cache = CropCache.build(read_people(labels), tmp_path, tmp_path / 'cache', 64, progress=False)
    assert len(cache) == 1


@pytest.mark.parametrize('field', ['keypoints', 'bbox'])
def test_fractions_in_the_whole_file_are_refused(tmp_path, field):
    labels = dotted_set(tmp_path, num_images=1, people=2)
    data = json.loads(labels.read_text())
    for person in data['annotations']:
        person[field] = [v / 640 if field == 'bbox' or i % 3 < 2 else v for i, v in enumerate(person[field])]
    labels.write_text(json.dumps(data))
    with pytest.raises(UserError, match='fractions'):
        evaluate(quiet('pck'), labels, tmp_path, estimator_of())
