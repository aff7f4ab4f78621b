"""Skeletons, images, crops, heatmap decoding, results and drawing: what poses are, without a network."""
