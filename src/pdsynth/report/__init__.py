"""Self-contained HTML pages and cards, from result files and prepared folders. They know no claim."""
