"""Files of weights: those that ship, checkpoints, official names, downloads."""
