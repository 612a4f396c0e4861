"""The audit of labelled text before training: what is doubled, contradictory, empty, cut, odd or out of balance."""
