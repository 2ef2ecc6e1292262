"""The results folder of `evaluate`: its writer, its reader, and the tables that other commands add."""
