"""What the pieces of attention do (notebook 19)."""
