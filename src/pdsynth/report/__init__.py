"""Self-contained HTML pages and Markdown cards from result files and prepared folders. No module imports a claim."""
