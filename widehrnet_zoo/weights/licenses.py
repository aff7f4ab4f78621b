"""The licence of weights, as an id of the Hub's list, in timm's config of each tag and in the cards."""

OWN = 'apache-2.0'
"""Of the code, and of the weights that ship."""

NOT_STATED = 'unknown'
"""Of the authors' weights: their code is under Apache 2.0, for their weights no licence is stated, so none is given."""
