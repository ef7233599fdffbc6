"""Where the rows of a batch come from: JSON lines, CSV and Parquet, read as they are asked for and never whole."""
