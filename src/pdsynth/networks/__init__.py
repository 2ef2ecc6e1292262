"""Networks. These modules use torch alone and read no files."""
