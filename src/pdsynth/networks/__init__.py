"""Networks: torch only, and no knowledge of files."""
