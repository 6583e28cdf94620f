"""Training Event2Vec as published (arXiv 2504.15371): samples of events, its augmentations, its recipe, transfer."""
