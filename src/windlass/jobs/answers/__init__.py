"""Where the answers of a batch go: a file of JSON lines or a folder of Parquet parts, cut back and continued."""
