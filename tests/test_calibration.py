import numpy as np
import pytest

from widehrnet_zoo.errors import UserError
from widehrnet_zoo.formats.coco import CocoLabels
from widehrnet_zoo.metrics.calibration import expected_calibration_error, fit_score_map, keypoint_hits
from widehrnet_zoo.pose.score_map import ScoreMap


def test_error_of_known_scores():
    # ten at 0.9 of which nine are right: no error; ten at 0.35 of which none is: 0.35
    scores = [0.9] * 10 + [0.35] * 10
    hits = [True] * 9 + [False] * 11
    assert expected_calibration_error(scores, hits) == pytest.approx((0 + 0.35) / 2)
    assert np.isnan(expected_calibration_error([], []))


def test_fitted_map_calibrates_photos_it_has_not_seen():
    generator = np.random.default_rng(0)
    peaks = generator.random(8000)
    hits = generator.random(8000) < peaks**2  # peaks promise too much
    fitted = fit_score_map(peaks[:4000], hits[:4000])
    assert expected_calibration_error(peaks[4000:], hits[4000:]) > 0.12
    assert expected_calibration_error(fitted(peaks[4000:]), hits[4000:]) < 0.03
    assert fitted(0.0) == 0 and (np.diff(fitted(np.linspace(0, 1.2, 50))) >= 0).all()


def test_map_survives_a_config_and_broken_ones_are_refused():
    score_map = ScoreMap((0.0, 0.5, 1.0), (0.0, 0.8, 0.9))
    assert ScoreMap.from_config(score_map.to_config()) == score_map
    np.testing.assert_allclose(score_map([[-1.0, 0.25], [0.75, 2.0]]), [[0, 0.4], [0.85, 0.9]])
    for broken in (
        {'peaks': [0, 1]},
        {'peaks': [0, 0], 'chances': [0, 1]},
        {'peaks': [0, 1], 'chances': [1, 0]},
        {'peaks': [0, 1], 'chances': [0, 2]},
        {'peaks': '01', 'chances': [0, 1]},
        [[0, 1], [0, 1]],
        {'peaks': [0, float('nan')], 'chances': [0, 1]},
    ):
        with pytest.raises(UserError, match=r'score[_ ]map'):
            ScoreMap.from_config(broken)
    with pytest.raises(UserError, match='200'):
        fit_score_map([0.5] * 10, [True] * 10)


def test_a_keypoint_is_right_within_oks_half():
    # OKS falls to 0.5 at d = 2 * sigma * sqrt(2 * area * ln 2)
    sigma, area = 0.1, 2500.0
    reach = 2 * sigma * np.sqrt(2 * area * np.log(2))
    person = {'id': 7, 'image_id': 1, 'area': area, 'keypoints': [50, 50, 2, 50, 50, 1, 0, 0, 0], 'bbox': [0, 0, 9, 9]}
    person |= {'iscrowd': 0, 'num_keypoints': 2}
    labels = CocoLabels({1: {'id': 1}}, [person], {'id': 1})
    near, far = 50 + 0.99 * reach, 50 + 1.01 * reach
    results = [{'image_id': 1, 'ann': 7, 'keypoints': [near, 50, 0.9, far, 50, 0.4, 3, 3, 0.1], 'score': 1}]
    scores, hits = keypoint_hits(labels, results, [sigma] * 3)
    assert scores.tolist() == [0.9, 0.4] and hits.tolist() == [True, False]


def test_a_models_score_map_is_saved_loaded_exported_and_applied(tmp_path):
    from small_model import small

    from widehrnet_zoo import PoseEstimator, create_model
    from widehrnet_zoo.export.export import export
    from widehrnet_zoo.hub import save_pretrained
    from widehrnet_zoo.pose.score_map import score_map_of

    model = small()
    image = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    boxes = [[10, 5, 50, 55]]
    peaks = PoseEstimator(model, size=(64, 64))(image, boxes).scores
    ends = float(peaks.min()) - 1, float(peaks.max()) + 1
    model.score_map = ScoreMap(ends, (0.0, 1.0))
    save_pretrained(model, tmp_path / 'model', size=(64, 64))
    export(model, tmp_path / 'model.torchscript', size=(64, 64))
    assert score_map_of(create_model(f'local-dir:{tmp_path / "model"}', pretrained=True)) == model.score_map
    expected = (peaks - ends[0]) / (ends[1] - ends[0])
    for source in (model, tmp_path / 'model', tmp_path / 'model.torchscript'):
        estimator = PoseEstimator(source, size=(64, 64) if source is model else None)
        np.testing.assert_allclose(estimator(image, boxes).scores, expected, atol=1e-5)
        np.testing.assert_allclose(estimator(image, boxes, peaks=True).scores, peaks, atol=1e-5)
