"""Photos in, keypoints out."""
