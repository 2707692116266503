"""What becomes of a layer after training: exported, stored, taken to NNX, looked at."""
