"""Official checkpoints (mmpose layout) to this package's layout."""

import re

RULES = [
    (re.compile(p), r)
    for p, r in [
        (r'^backbone\.stem\.conv1\.', 'stem.conv.'),
        (r'^backbone\.stem\.branch1\.0\.', 'stem.branch1.conv_dw.'),
        (r'^backbone\.stem\.branch1\.1\.', 'stem.branch1.conv_pw.'),
        (r'^backbone\.stem\.expand_conv\.', 'stem.branch2.conv_pw.'),
        (r'^backbone\.stem\.depthwise_conv\.', 'stem.branch2.conv_sep.conv_dw.'),
        (r'^backbone\.stem\.linear_conv\.', 'stem.branch2.conv_sep.conv_pw.'),
        (r'^backbone\.transition(\d+)\.\d+\.0\.(\d)\.', r'transitions.\1.new.<\2>.'),
        (r'^backbone\.transition(\d+)\.(\d+)\.(\d)\.', r'transitions.\1.keep.\2.<\3>.'),
        (
            r'^backbone\.stage(\d+)\.(\d+)\.layers\.(\d+)\.invertRes\.(\d+)\.block\.0\.',
            r'stages.\1.\2.branches.\4.\3.conv_pw.',
        ),
        (
            r'^backbone\.stage(\d+)\.(\d+)\.layers\.(\d+)\.invertRes\.(\d+)\.block\.1\.',
            r'stages.\1.\2.branches.\4.\3.conv_dw.',
        ),
        (
            r'^backbone\.stage(\d+)\.(\d+)\.layers\.(\d+)\.invertRes\.(\d+)\.block\.2\.fc',
            r'stages.\1.\2.branches.\4.\3.attn.fc',
        ),
        (
            r'^backbone\.stage(\d+)\.(\d+)\.layers\.(\d+)\.invertRes\.(\d+)\.block\.[23]\.',
            r'stages.\1.\2.branches.\4.\3.conv_pwl.',
        ),
        (
            r'^backbone\.stage(\d+)\.(\d+)\.fuse_layers\.(\d+)\.(\d+)\.(\d+)\.(\d)\.',
            r'stages.\1.\2.fuse.paths.\3.\4.\5.<\6>.',
        ),
        (r'^backbone\.stage(\d+)\.(\d+)\.fuse_layers\.(\d+)\.(\d+)\.0\.', r'stages.\1.\2.fuse.paths.\3.\4.conv.'),
        (r'^backbone\.stage(\d+)\.(\d+)\.fuse_layers\.(\d+)\.(\d+)\.1\.', r'stages.\1.\2.fuse.paths.\3.\4.bn.'),
        (r'^backbone\.head_layer\.projects\.(\d+)\.depthwise_conv\.', r'neck.projects.\1.conv_dw.'),
        (r'^backbone\.head_layer\.projects\.(\d+)\.pointwise_conv\.', r'neck.projects.\1.conv_pw.'),
        (r'^keypoint_head\.final_layer\.', 'classifier.'),
    ]
]
SEP = {'<0>': 'conv_dw.conv', '<1>': 'conv_dw.bn', '<2>': 'conv_pw.conv', '<3>': 'conv_pw.bn'}


def convert_key(key):
    for p, r in RULES:
        if p.match(key):
            key = p.sub(r, key)
            for a, b in SEP.items():
                key = key.replace(a, b)
            return key
    return None
