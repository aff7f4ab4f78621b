"""The figures by which poses are judged: OKS, PCK, COCO, MPII, bootstrap intervals."""
