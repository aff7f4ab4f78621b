import copy
import json
import sys

import pytest
import timm

from widehrnet_zoo import UserError, create_model
from widehrnet_zoo.pose.flip import check_flip_test
from widehrnet_zoo.pose.skeletons import SKELETONS, Skeleton, read_skeleton, skeleton_from_names, skeleton_of


@pytest.mark.parametrize('name', SKELETONS)
def test_a_skeleton_is_symmetric(name):
    skeleton = SKELETONS[name]
    flipped = [skeleton.keypoints[i] for i in skeleton.flip_order]
    swap = {'left': 'right', 'right': 'left'}
    assert flipped == ['_'.join(swap.get(w, w) for w in k.split('_')) for k in skeleton.keypoints]
    assert [skeleton.flip_order[i] for i in skeleton.flip_order] == list(range(skeleton.num_keypoints))
    bones = {frozenset(b) for b in skeleton.bones}
    assert bones == {frozenset(skeleton.flip_order[i] for i in b) for b in bones}
    # drawn as one figure: every keypoint hangs on a bone, and all bones hang together
    reached, todo = set(), {0}
    while todo:
        reached |= todo
        todo = {i for b in bones for i in b if b & reached} - reached
    assert reached == set(range(skeleton.num_keypoints))


def test_coco_is_the_skeleton_of_its_files(shared):
    for file in ('people/val.json', 'coco_mini/annotations.json'):
        category = json.loads((shared / file).read_text())['categories'][0]
        assert tuple(category['keypoints']) == SKELETONS['coco'].keypoints
        if 'skeleton' in category:
            ours = {frozenset(b) for b in SKELETONS['coco'].bones}
            assert {frozenset(i - 1 for i in b) for b in category['skeleton']} == ours


def test_coco_sigmas_are_those_of_the_official_evaluation():
    cocoeval = pytest.importorskip('pycocotools.cocoeval')
    assert SKELETONS['coco'].sigmas == pytest.approx(cocoeval.Params('keypoints').kpt_oks_sigmas)


def test_sides_come_from_names():
    assert SKELETONS['coco'].sides[:3] == ('centre', 'left', 'right')
    assert SKELETONS['mpii'].sides[5:8] == ('left', 'centre', 'centre')


@pytest.mark.parametrize('name', SKELETONS)
def test_a_skeleton_survives_json(name):
    values = json.loads(json.dumps(SKELETONS[name].to_dict()))
    assert Skeleton.from_dict(values) == SKELETONS[name]


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'keypoints': []}, 'at least one'),
        ({'keypoints': ['a', 'a']}, 'no name twice'),
        ({'keypoints': ['a', 'b'], 'bones': [[0, 2]]}, 'bones must be pairs of indices below 2'),
        ({'keypoints': ['a', 'b'], 'bones': [[-1, 0]]}, 'bones must be pairs'),
        ({'keypoints': ['a', 'b'], 'bones': [[0]]}, 'cannot be read'),
        ({'keypoints': ['a', 'b', 'c'], 'flip_pairs': [[0, 1], [1, 2]]}, 'more than one flip pair'),
        ({'keypoints': ['a'], 'flip_pairs': [[0, 0]]}, 'more than one flip pair'),
        ({'keypoints': ['a', 'b'], 'sigmas': [0.1]}, 'one positive sigma for each'),
        ({'keypoints': ['a'], 'sigmas': [0]}, 'one positive sigma'),
        ({'keypoints': ['a'], 'sigmas': 'big'}, 'cannot be read'),
        ({'keypoints': 'nose'}, 'a list of names'),
        ({'keypoints': ['a'], 'edges': []}, 'unknown: edges'),
        ({'name': 'none'}, 'keypoints is missing'),
    ],
)
def test_a_skeleton_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        Skeleton.from_dict(values)


@pytest.mark.parametrize(
    ('names', 'pairs'),
    [
        (('left_eye', 'nose', 'right_eye', 'left_horn'), ((0, 2),)),
        (('R_Eye', 'Nose', 'L_Eye', 'L_F_Paw', 'R_F_Paw', 'Tail'), ((2, 0), (3, 4))),  # AP-10K
        (('LEye', 'REye', 'LHip', 'RHip', 'Hip'), ((0, 1), (2, 3))),  # AlphaPose
        (('lefteye', 'righteye', 'hindleftpaw', 'hindrightpaw', 'tail'), ((0, 1), (2, 3))),  # DeepLabCut
        (('eyeL', 'eyeR', 'body'), ((0, 1),)),  # SLEAP
        (('eye.L', 'eye.R', 'x.L', 'x.R'), ((0, 1), (2, 3))),  # Blender
        (('x_l', 'x_r', 'LX', 'RX', 'leftx', 'rightx', 'left1', 'right1'), ((0, 1), (2, 3), (4, 5), (6, 7))),
        (('lsho', 'rsho', 'l1', 'r1', 'Lt Hip', 'Rt Hip'), ((0, 1), (2, 3), (4, 5))),
        (('left_ear', 'right_ear', 'FLpaw', 'FRpaw', 'HLpaw', 'HRpaw'), ((0, 1), (2, 3), (4, 5))),
        (('Öhr_L', 'Ähr_L', 'Öhr_R', 'Ähr_R'), ((0, 2), (1, 3))),
        (('left_eye', 'RightEye'), ((0, 1),)),
        (('left', 'right', 'light'), ((0, 1),)),
        (('lip', 'tail', 'heel', 'left_ear', 'rear'), ()),
        (('a', 'b'), ()),
    ],
)
def test_names_alone_give_the_flip_pairs_and_the_sides(names, pairs):
    skeleton = skeleton_from_names(names, 'goat')
    assert (skeleton.name, skeleton.flip_pairs, skeleton.bones) == ('goat', pairs, ())
    assert [skeleton.sides[i] for pair in pairs for i in pair] == ['left', 'right'] * len(pairs)
    # a skeleton's file that says nothing of pairs, and one that says that there are none
    assert Skeleton.from_dict({'keypoints': list(names)}).flip_pairs == pairs
    assert Skeleton.from_dict({'keypoints': list(names), 'flip_pairs': []}).flip_pairs == ()


@pytest.mark.parametrize(
    ('names', 'said'),
    [
        (('a', 'b'), 'no left and right among the keypoints (a, b)'),
        (('left_eye', 'right_eye', 'left_ear'), 'no flip pair for left_ear'),
        (('nose', 'left_eye', 'right_eye'), None),
        (('spot',), None),
    ],
)
def test_a_flip_test_without_pairs_is_said(names, said, caplog):
    check_flip_test(skeleton_from_names(names, 'said'))
    assert (said in caplog.text) if said else not caplog.text


def test_a_model_knows_its_skeleton_without_weights_and_without_a_head():
    assert create_model('widehrnet_18_attn', device='meta').skeleton is SKELETONS['coco']
    model = create_model('widehrnet_18.mpii_256x256', num_classes=0, device='meta')
    assert model.skeleton is SKELETONS['mpii']
    with pytest.raises(UserError, match='no keypoint head'):
        skeleton_of(model)  # what its outputs are
    own = Skeleton('own', ('a', 'b'))
    model.reset_classifier(2)
    model.skeleton = own
    assert model.skeleton is own and copy.deepcopy(model).skeleton == own
    model.reset_classifier(3)
    assert model.skeleton.num_keypoints == 3


def test_the_skeleton_of_a_model():
    assert skeleton_of(timm.get_pretrained_cfg('widehrnet_30.mpii_256x256')) is SKELETONS['mpii']
    assert skeleton_of(timm.get_pretrained_cfg('widehrnet_18_attn').to_dict()) is SKELETONS['coco']
    model = create_model('widehrnet_10', device='meta')
    assert skeleton_of(model) is SKELETONS['coco']
    model.reset_classifier(3)
    assert skeleton_of(model).keypoints == ('keypoint_0', 'keypoint_1', 'keypoint_2')
    own = Skeleton('own', ('a', 'b', 'c'))
    model.skeleton = own
    assert skeleton_of(model) is own
    named = create_model('widehrnet_10', num_classes=2, device='meta')
    named.pretrained_cfg['label_names'] = ('left_paw', 'right_paw')
    assert skeleton_of(named).flip_pairs == ((0, 1),)
    with pytest.raises(UserError, match='no keypoint head'):
        skeleton_of(create_model('widehrnet_10', num_classes=0, device='meta'))


def test_a_skeleton_in_json_needs_no_yaml(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'yaml', None)
    file = tmp_path / 'birds.json'
    file.write_text('{"keypoints": ["beak", "left_wing", "right_wing"], "flip_pairs": [[1, 2]]}')
    assert read_skeleton(str(file)).flip_pairs == ((1, 2),)
    for content in ('{"keypoints": [', '[' * 100_000, '[1]', '\xff'):
        file.write_text(content, encoding='latin-1')
        with pytest.raises(UserError, match=r'birds\.json'):
            read_skeleton(str(file))
