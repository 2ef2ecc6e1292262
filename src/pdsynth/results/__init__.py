"""The results folder: the one writer and the one reader of what `evaluate` leaves, and the tables beside it."""
