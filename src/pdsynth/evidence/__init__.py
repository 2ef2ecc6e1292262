"""Evidence beyond image quality: one package per claim, with its computation, its files and its report section."""
