"""The published augmentations of Event2Vec: grammar and policies in `grammar`, what they do beside it."""

from train.event2vec.transforms.grammar import Policy, parse, policy

__all__ = ["Policy", "parse", "policy"]
