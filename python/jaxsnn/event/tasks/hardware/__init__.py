"""Programs with BrainScaleS-2, or an emulated chip, in the loop."""
