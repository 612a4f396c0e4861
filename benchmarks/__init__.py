"""Side by side with peers, on the same data, checkpoint and hyperparameters. Dated results are in results/."""
