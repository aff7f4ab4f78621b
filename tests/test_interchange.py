import json
import math
import subprocess
import sys

import numpy as np
import pytest

from widehrnet_zoo import SKELETONS, PoseResult, Skeleton, UserError
from widehrnet_zoo.formats import (
    FORMATS,
    from_coco,
    from_mmpose,
    read_csv,
    read_mmpose,
    read_parquet,
    save_results,
    to_mmpose,
    write_csv,
    write_mmpose,
    write_parquet,
)

COCO = SKELETONS['coco']
THREE = Skeleton('kite', ('top', 'left_corner', 'right_corner'), ((1, 2),), ((0, 1), (0, 2)))
# as MMPose 1.3's inferencer writes it with pred_out_dir: the box stands in a list of its own
WRITTEN = """[{"keypoints": [[10.5, 20.25], [30.0, 40.0], [50.0, 60.0]], "keypoint_scores": [0.5, 0.25, 1.01],
  "bbox": [[1.0, 2.0, 99.0, 98.5]], "bbox_score": 0.75}]"""


def make(people: int, path: str | None = 'photos/one.jpg', skeleton: Skeleton = COCO, seed: int = 0) -> PoseResult:
    random = np.random.default_rng(seed)
    low = random.uniform(-20, 300, (people, 2))
    return PoseResult(
        keypoints=random.uniform(0, 600, (people, skeleton.num_keypoints, 2)).astype(np.float32),
        scores=random.uniform(0, 1.1, (people, skeleton.num_keypoints)).astype(np.float32),
        boxes=np.concatenate([low, low + random.uniform(1, 300, (people, 2))], 1).astype(np.float32),
        box_scores=random.uniform(0, 1, people).astype(np.float32),
        skeleton=skeleton,
        image_size=(640, 481),
        path=path,
    )


def assert_equal(a: PoseResult, b: PoseResult) -> None:
    for name in ('keypoints', 'scores', 'boxes', 'box_scores'):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.skeleton, a.image_size, a.path) == (b.skeleton, b.image_size, b.path)


@pytest.mark.parametrize('people', [0, 1, 3])
def test_mmpose_predictions_come_back_bit_equal_through_a_file(people, tmp_path):
    result = make(people, 'a/000785.jpg')
    (file,) = write_mmpose([result], tmp_path / 'preds')
    assert file == tmp_path / 'preds' / '000785.json'
    (back,) = read_mmpose(file, COCO, (640, 481))
    assert_equal(back, make(people, str(file)))


def test_what_mmpose_writes_is_read_and_written_in_its_layout():
    result = from_mmpose(json.loads(WRITTEN), THREE, (100, 100))
    np.testing.assert_array_equal(result.keypoints, [[[10.5, 20.25], [30, 40], [50, 60]]])
    np.testing.assert_array_equal(result.boxes, [[1, 2, 99, 98.5]])
    np.testing.assert_array_equal(result.scores, np.array([[0.5, 0.25, 1.01]], np.float32))
    assert result.box_scores.tolist() == [0.75]
    again = to_mmpose(result)
    assert [set(person) for person in again] == [{'keypoints', 'keypoint_scores', 'bbox', 'bbox_score'}]
    assert again[0]['bbox'] == [[1.0, 2.0, 99.0, 98.5]]
    assert again[0]['keypoint_scores'] == pytest.approx([0.5, 0.25, 1.01], abs=1e-6)


def test_mmpose_videos_demo_files_and_models_without_boxes_are_read(tmp_path):
    people = json.loads(WRITTEN)
    file = tmp_path / 'video.json'
    file.write_text(json.dumps({'meta_info': {}, 'instance_info': [{'frame_id': 1, 'instances': people},
                                                                   {'frame_id': 2, 'instances': []}]}))  # fmt: skip
    assert [len(r) for r in read_mmpose(file, THREE, (100, 100))] == [1, 0]
    file.write_text(json.dumps({'meta_info': {}, 'instance_info': people}))
    assert [len(r) for r in read_mmpose(file, THREE, (100, 100))] == [1]
    del people[0]['bbox'], people[0]['bbox_score']
    result = from_mmpose(people, THREE, (100, 100))
    np.testing.assert_array_equal(result.boxes, [[10.5, 20.25, 50, 60]])
    assert result.box_scores.tolist() == [1]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'keypoints': [[1, 2], [3, 4]]}, 'expected 3 x 2 numbers, found 2 x 2'),
        ({'keypoints': [[1, 2, 3]] * 3}, 'found 3 x 3'),
        ({'keypoints': [[1, 2], [3, 4], [5]]}, 'expected 3 x 2 numbers'),
        ({'keypoints': [['1', '2']] * 3}, 'expected 3 x 2 numbers'),
        ({'keypoints': {'top': 1}}, 'expected 3 x 2 numbers'),
        ({'keypoints': [[math.nan, 2]] * 3}, 'NaN'),
        ({'keypoints': [[1e39, 2]] * 3}, 'infinite'),
        ({'keypoints': [[10**400, 2]] * 3}, 'expected'),
        ({'keypoint_scores': [True, False, True]}, 'expected 3 numbers'),
        ({'keypoint_scores': None}, 'expected 3 numbers'),
        ({'bbox': [[1, 2, 3]]}, 'expected 4 numbers'),
        ({'bbox': 'all'}, 'expected 4 numbers'),
        ({'bbox_score': [0.5]}, 'expected a number'),
        ({'bbox_score': math.inf}, 'infinite'),
    ],
)
def test_hostile_mmpose_predictions_get_one_sentence(change, words):
    (person,) = json.loads(WRITTEN)
    with pytest.raises(UserError, match=words) as caught:
        from_mmpose([{**person, **change}], THREE, (100, 100))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'content',
    [
        '',
        '{',
        '{}',
        '3',
        '"keypoints"',
        '[1]',
        '[[]]',
        '[{}]',
        '[{"instances": []}, 1]',
        '[{"instances": {}}]',
        '[' * 100_000,
        '[{"keypoints": []}]',
        b'\xff\xfe',
    ],
)
def test_files_that_are_no_mmpose_predictions_are_refused(content, tmp_path):
    file = tmp_path / 'x.json'
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError):
        read_mmpose(file, THREE, (100, 100))
    with pytest.raises(UserError, match='No such file'):
        read_mmpose(tmp_path / 'none.json', THREE, (100, 100))


def test_mmpose_files_never_overwrite_each_other_or_hold_nan(tmp_path):
    with pytest.raises(UserError, match='Two images are called one'):
        write_mmpose([make(1, 'a/one.jpg'), make(1, 'b/one.png')], tmp_path)
    broken = make(1)
    broken.keypoints[0, 0, 0] = np.nan
    with pytest.raises(UserError, match='NaN'):
        write_mmpose([broken], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=['csv', 'parquet'])
def table(request):
    if request.param == 'parquet':
        pytest.importorskip('pyarrow')
        return write_parquet, read_parquet
    return write_csv, read_csv


def test_tables_come_back_bit_equal_with_their_boxes(table, tmp_path):
    write, read = table
    results = [make(2, 'a "quoted", näme\nof two lines.jpg'), make(1, 'b.jpg', seed=1)]
    results[0].keypoints[1, 3] = np.nan
    write(results, tmp_path / 't', boxes=True)
    back = read(tmp_path / 't')
    assert len(back) == 2
    for a, b in zip(results, back, strict=True):
        assert_equal(a, b)


def test_six_columns_are_enough_and_the_rest_is_said(table, tmp_path):
    write, read = table
    result = make(2, None, THREE)
    write([result], tmp_path / 't')
    with pytest.raises(UserError, match='image_size'):
        read(tmp_path / 't')
    (back,) = read(tmp_path / 't', THREE, {'0': (640, 481)})
    np.testing.assert_array_equal(back.keypoints, result.keypoints)
    np.testing.assert_array_equal(back.boxes[:, :2], result.keypoints.min(1))
    assert back.path == '0'
    assert back.box_scores.tolist() == [1, 1]


def test_csv_is_plain_text_with_one_row_per_keypoint(tmp_path):
    points = np.array([[[1.5, 2], [3, 4.25], [0.1, np.nan]]], np.float32)
    result = PoseResult(points, np.array([[1, 0.5, 0]]), np.ones((1, 4)), np.ones(1), THREE, (9, 9), 'a.jpg')
    write_csv([result], tmp_path / 't.csv')
    assert (tmp_path / 't.csv').read_text() == (
        'image,person,keypoint,x,y,score\n'
        'a.jpg,0,top,1.5,2.0,1.0\n'
        'a.jpg,0,left_corner,3.0,4.25,0.5\n'
        'a.jpg,0,right_corner,0.1,,0.0\n'
    )


def test_a_shuffled_table_with_a_byte_order_mark_is_the_same(tmp_path):
    write_csv([make(2)], tmp_path / 't.csv', boxes=True)
    header, *rows = (tmp_path / 't.csv').read_text().splitlines()
    np.random.default_rng(0).shuffle(rows)
    (tmp_path / 't.csv').write_text('\ufeff' + '\r\n'.join([header, *rows]) + '\r\n', encoding='utf-8')
    (back,) = read_csv(tmp_path / 't.csv')
    assert_equal(back, make(2))


GOOD = ['image,person,keypoint,x,y,score', 'a,0,top,1,2,1', 'a,0,left_corner,1,2,1', 'a,0,right_corner,1,2,1']


@pytest.mark.parametrize(
    ('place', 'line', 'words'),
    [
        (0, 'image,person,keypoint,x,y', 'no column score'),
        (0, 'image;person;keypoint;x;y;score', 'no column image'),
        (0, 'image,person,keypoint,x,y,score,box_x1', 'no column box_y1'),
        (0, 'image,person,keypoint,x,y,score,x', 'column x twice'),
        (1, 'a,0,top,1,2', 'line 2: expected 6 cells'),
        (1, 'a,0,top,1,2,1,9', 'line 2: expected 6 cells'),
        (1, 'a,0,top,one,2,1', "line 2: x is 'one'"),
        (1, 'a,0,top,1,nan,1', 'finite number'),
        (1, 'a,0,top,1,2,-inf', 'finite number'),
        (1, 'a,0,top,1,2,1e39', 'finite number'),
        (1, 'a,-1,top,1,2,1', 'whole number from 0'),
        (1, 'a,0.5,top,1,2,1', 'whole number from 0'),
        (1, 'a,,top,1,2,1', 'whole number from 0'),
        (1, 'a,0,,1,2,1', 'are text'),
        (1, 'a,0,left_corner,1,2,1', 'stands there twice'),
        (1, 'a,0,bottom,1,2,1', 'bottom of person 0 in a is not of'),
        (1, 'a,1,top,1,2,1', 'is missing'),
        (1, '"a,0,top,1,2,1', 'cannot be read as CSV'),
        (1, 'a' * 200_000 + ',0,top,1,2,1', 'cannot be read as CSV'),
    ],
)
def test_hostile_csv_gets_one_sentence(place, line, words, tmp_path):
    lines = list(GOOD)
    lines[place] = line
    (tmp_path / 't.csv').write_text('\n'.join(lines))
    with pytest.raises(UserError, match=words) as caught:
        read_csv(tmp_path / 't.csv', THREE, (9, 9))
    assert '\n' not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_files_that_are_no_tables_are_refused(table, tmp_path):
    _, read = table
    for content in (b'', b'\xff\xd8\xff\xe0 JFIF', b'PAR1', b'PAR1' + bytes(64) + b'PAR1'):
        (tmp_path / 't').write_bytes(content)
        with pytest.raises(UserError):
            read(tmp_path / 't')
    with pytest.raises(UserError, match='No such file'):
        read(tmp_path / 'none')
    with pytest.raises(UserError):
        read(tmp_path)


def test_boxes_and_sizes_that_contradict_themselves_are_refused(tmp_path):
    write_csv([make(1)], tmp_path / 't.csv', boxes=True)
    good = (tmp_path / 't.csv').read_text()
    (tmp_path / 't.csv').write_text(good[:-1].rpartition(',')[0] + ',482\n')
    with pytest.raises(UserError, match='image_height'):
        read_csv(tmp_path / 't.csv')
    (tmp_path / 't.csv').write_text(good.replace('640,481', '640,0'))
    with pytest.raises(UserError, match='whole numbers above 0'):
        read_csv(tmp_path / 't.csv')


def test_parquet_of_another_kind_is_refused_and_of_another_writer_read(tmp_path):
    arrow, parquet = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
    columns = {'image': ['a'] * 3, 'person': [0] * 3, 'keypoint': list(THREE.keypoints)}
    columns |= {'x': [1.5, 2, 3], 'y': [1, 2, 3], 'score': [1, None, 1]}
    parquet.write_table(arrow.table(columns), tmp_path / 't')
    (back,) = read_parquet(tmp_path / 't', image_size=(9, 9))
    assert back.skeleton.keypoints == THREE.keypoints
    np.testing.assert_array_equal(back.scores, [[1, np.nan, 1]])
    for change in ({'x': [[1], [2], [3]]}, {'person': ['a', 'b', 'c']}, {'x': [float('nan')] * 3}, {'x': [True] * 3},
                   {'keypoint': [1, 2, 3]}, {'image': [b'a'] * 3}):  # fmt: skip
        parquet.write_table(arrow.table(columns | change), tmp_path / 't')
        with pytest.raises(UserError):
            read_parquet(tmp_path / 't', image_size=(9, 9))


def test_every_format_is_written_through_one_door(tmp_path):
    pytest.importorskip('pyarrow')
    results = [make(2, 'p/000785.jpg'), make(1, 'p/seaside.jpg', seed=1)]
    for name in FORMATS:
        save_results(results, tmp_path / name, name)
    assert_equal(PoseResult.from_dict(json.loads((tmp_path / 'json').read_text())[1]), results[1])
    coco = json.loads((tmp_path / 'coco').read_text())
    assert [entry['image_id'] for entry in coco] == [785, 785, 'seaside']
    np.testing.assert_array_equal(from_coco(coco, COCO, (640, 481), 785).keypoints, results[0].keypoints)
    assert sorted(f.name for f in (tmp_path / 'mmpose').iterdir()) == ['000785.json', 'seaside.json']
    assert_equal(read_parquet(tmp_path / 'parquet', image_size=(640, 481))[0],
                 read_csv(tmp_path / 'csv', image_size=(640, 481))[0])  # fmt: skip
    with pytest.raises(UserError, match='choose json, jsonl, csv'):
        save_results(results, tmp_path / 'x', 'xml')


def test_nothing_but_the_core_is_imported_for_it():
    code = (
        'import sys; sys.modules["torch"] = None; import widehrnet_zoo.formats;'
        'print({"pandas", "pyarrow", "supervision"} & set(sys.modules))'
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == 'set()'
